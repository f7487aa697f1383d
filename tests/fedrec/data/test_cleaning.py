import polars as pl
import pytest

from fedrec.config import DataConfig
from fedrec.data import load
from fedrec.data.bundled import BUNDLED_COLUMNS, BUNDLED_EVENTS
from fedrec.data.cleaning import clean, write_prepared
from fedrec.errors import ConfigError, DataError


@pytest.fixture
def files(tmp_path):
    (tmp_path / "e.csv").write_text(
        "user_id,item_id,timestamp,title,Country\nu,a,1,Mug,FR\nu,x,2,Pot,FR\n,a,3,Mug,DE\n"
    )
    (tmp_path / "c.csv").write_text("item_id,title,price\na,Cup,nan\n,Nobody,1\na,Mug,2\nb,Tea,3\n")
    return tmp_path


def test_a_given_catalogue_is_mended_and_unknown_items_dropped_with_counts(files):
    cleaned = clean(files / "e.csv", columns={}, catalogue=files / "c.csv", catalogue_columns={})
    assert cleaned.rows_read == 3
    assert [(count.rule, count.dropped) for count in cleaned.counts if count.dropped] == [
        ("missing_user", 1),
        ("unknown_item", 1),
    ]
    assert cleaned.unknown_items == {"x": 1}
    assert [(count.rule, count.dropped, count.kept) for count in cleaned.catalogue_counts] == [
        ("missing_item", 1, 3),
        ("bad_price", 1, 3),
        ("repeated_item", 1, 2),
    ]
    assert cleaned.catalogue.titles == ("Cup", "Tea")
    assert cleaned.catalogue.attributes["price"].to_list() == [None, 3.0]


def test_titles_on_the_lines_make_a_catalogue(files):
    cleaned = clean(files / "e.csv", columns={}, catalogue_columns={})
    assert cleaned.catalogue.titles == ("Mug", "Pot")
    assert cleaned.unknown_items == {}


def test_prepared_files_load_without_any_mapping_and_lose_no_column(files):
    cleaned = clean(files / "e.csv", columns={}, catalogue_columns={})
    events_path, catalogue_path = write_prepared(cleaned, files / "out" / "deep")
    events, catalogue, _ = load(DataConfig(events=events_path, catalogue=catalogue_path))
    assert events.columns == ["user_id", "item_id", "timestamp", "Country"]
    assert events.rows() == [("u", "a", 1, "FR"), ("u", "x", 2, "FR")]
    assert catalogue.digest() == cleaned.catalogue.digest()
    assert sorted(path.name for path in (files / "out" / "deep").iterdir()) == ["catalogue.parquet", "events.parquet"]


def test_the_bundled_set_prepared_is_the_bundled_set(tmp_path):
    events_path, catalogue_path = write_prepared(clean(None, columns={}, catalogue_columns={}), tmp_path)
    events, catalogue, _ = load(DataConfig(events=events_path, catalogue=catalogue_path))
    bundled, bundled_catalogue, _ = load(DataConfig())
    assert events.equals(bundled)
    assert catalogue.digest() == bundled_catalogue.digest()


def test_the_raw_bundled_file_is_cleaned_by_the_general_rules_too():
    cleaned = clean(BUNDLED_EVENTS, columns=BUNDLED_COLUMNS, catalogue_columns={})
    dropped = {count.rule: count.dropped for count in cleaned.counts}
    assert dropped["missing_user"] == 135_080  # as its authors count them
    assert cleaned.events["user_id"].n_unique() == 4_339  # postage is an item here


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": None, "columns": {"user_id": "who"}, "catalogue_columns": {}}, "the bundled set has its own columns"),
        ({"columns": {}, "catalogue_columns": {"title": "name"}}, "--map-catalogue needs --catalogue"),
    ],
)
def test_a_mapping_without_its_file_is_a_config_error(files, settings, message):
    with pytest.raises(ConfigError, match=message):
        clean(settings.pop("path", files / "e.csv"), **settings)


def test_a_catalogue_that_knows_no_item_leaves_nothing(files):
    (files / "c.csv").write_text("item_id,title\nq,Q\n")
    with pytest.raises(DataError, match="no row is left: not one item is in the catalogue"):
        clean(files / "e.csv", columns={}, catalogue=files / "c.csv", catalogue_columns={})


def test_a_catalogue_without_items_is_an_error(files):
    (files / "c.csv").write_text("item_id,title\n,Q\n")
    with pytest.raises(DataError, match=r"c\.csv: no item is left after cleaning; missing_item dropped 1"):
        clean(files / "e.csv", columns={}, catalogue=files / "c.csv", catalogue_columns={})


def test_nothing_is_prepared_without_titles(files):
    pl.read_csv(files / "e.csv").drop("title").write_csv(files / "bare.csv")
    cleaned = clean(files / "bare.csv", columns={}, catalogue_columns={})
    with pytest.raises(
        DataError, match=r"bare\.csv: items have no titles; give --catalogue FILE or --map title=COLUMN"
    ):
        write_prepared(cleaned, files / "out")
    assert not (files / "out").exists()
