"""Every public set we know of goes through the readers. They are not ours to ship: absent, these tests skip."""

import os
from pathlib import Path

import pytest

from fedrec.data.bundled import BUNDLED_COLUMNS
from fedrec.data.catalogue import read_catalogue, refuse_unknown_items
from fedrec.data.cleaning import clean
from fedrec.data.events import read_events
from fedrec.data.findings import Thresholds, sorted_by_item
from fedrec.data.histories import build_histories
from fedrec.errors import DataError

FOLDER = Path(os.environ.get("FEDREC_TEST_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data")
OLIST = {
    "user_id": "customer_unique_id",
    "item_id": "product_id",
    "timestamp": "order_purchase_timestamp",
    "merchant_id": "seller_id",
    "event": "order_status",
}


def real(name):
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


@pytest.mark.parametrize(
    ("name", "people", "items", "rows"),
    [
        ("ml-100k", 943, 1_682, 100_000),
        ("ml-1m", 6_040, 3_416, 999_611),
        ("amazon14_beauty", 22_363, 12_101, 198_502),
        ("amazon18_games", 50_546, 16_859, 440_264),
        ("amazon18_office", 3_231, 3_317, 22_447),
    ],
)
def test_a_set_in_our_columns_is_read_without_losing_a_row(name, people, items, rows):
    folder = real(name)
    events = read_events(folder / "events.parquet", columns={})
    catalogue = read_catalogue(folder / "catalogue.parquet", columns={})
    refuse_unknown_items(events, catalogue, source=name)
    assert (events["user_id"].n_unique(), events["item_id"].n_unique(), events.height) == (people, items, rows)
    histories, _ = build_histories(events, catalogue, min_events=4, merge_repeats=True, max_history=200)
    assert 0 < len(histories) <= people


def test_order_lines_are_read_with_a_mapping_and_serve_as_their_own_catalogue():
    path = real("olist_sample/order_items.csv.gz")
    events = read_events(path, columns=OLIST)
    assert (events.height, events["merchant_id"].n_unique()) == (19_237, 2_091)
    assert events["timestamp"].min() == 1473023719  # 2016-09-04 21:15:19
    catalogue = read_catalogue(path, columns={"item_id": "product_id", "title": "product_category_name_english"})
    refuse_unknown_items(events, catalogue, source="olist")
    assert len(catalogue) == events["item_id"].n_unique()


def test_a_product_catalogue_with_attributes_is_read():
    catalogue = read_catalogue(real("chorus_search/catalogue.parquet"), columns={})
    assert len(catalogue) == 19_406
    assert catalogue.attributes.columns == ["brand", "description", "price", "attributes"]
    assert catalogue.texts()[0].startswith("Xerox 006R90321 toner cartridge Original Black 6 pc(s). Xerox. Toner")


def test_raw_invoice_lines_are_refused_at_their_first_bad_row_and_cleaned_with_counts():
    path = real("online_retail/online_retail.parquet")
    with pytest.raises(DataError, match=r"row 142: Quantity=-1\.0: expected a quantity > 0"):
        read_events(path, columns=BUNDLED_COLUMNS)
    assert clean(path, columns=BUNDLED_COLUMNS, catalogue_columns={}).rows_read == 541_909


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("criteo_sample/train.tsv", "no column 'user_id' for the field 'user_id'; the file has '0', '1'"),
        ("bitext_support/utterances_20k.csv", "no column 'user_id'.*the file has 'flags', 'utterance', 'category'"),
        ("chorus_search/judgments.csv", "no column 'user_id'.*the file has 'query', 'docid', 'rating'"),
    ],
)
def test_a_set_without_people_is_refused_in_a_clear_line(name, message):
    with pytest.raises(DataError, match=message):
        read_events(real(name), columns={})


@pytest.mark.parametrize(
    ("name", "severity"), [("amazon14_beauty", "look"), ("amazon18_games", "ok"), ("ml-1m", "ok"), ("ml-100k", "ok")]
)
def test_the_copy_that_is_sorted_by_item_id_in_part_is_found_out(name, severity):
    events = read_events(real(name) / "events.parquet", columns={})
    assert sorted_by_item(events, Thresholds()).severity == severity
