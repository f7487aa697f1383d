import polars as pl
import pytest

from fedrec.data.catalogue import (
    Catalogue,
    catalogue_from_events,
    read_catalogue,
    refuse_unknown_items,
    write_catalogue,
)
from fedrec.errors import DataError

ITEMS = {
    "item_id": ["b", "a"],
    "title": ["Green tea", " Mug "],
    "brand": ["Leaf", None],
    "price": [2, None],
    "colour": ["green", "white"],
}


def write(tmp_path, **columns):
    pl.DataFrame({**ITEMS, **columns}, strict=False).write_parquet(tmp_path / "items.parquet")
    return tmp_path / "items.parquet"


def test_items_keep_the_order_of_the_file(tmp_path):
    catalogue = read_catalogue(write(tmp_path), columns={})
    assert catalogue.item_ids == ("b", "a")
    assert catalogue.titles == ("Green tea", "Mug")
    assert catalogue.index == {"b": 0, "a": 1}
    assert len(catalogue) == 2
    assert catalogue.attributes.columns == ["brand", "price", "colour"]


def test_a_column_of_text_has_an_entry_for_each_item(tmp_path):
    catalogue = read_catalogue(write(tmp_path), columns={})
    assert catalogue.text_column("brand") == ["Leaf", ""]
    assert catalogue.text_column("category") == ["", ""]  # not in the file
    assert catalogue.text_column("price") == ["", ""]  # no text


def test_text_is_the_title_then_what_else_is_said(tmp_path):
    path = write(tmp_path, category=["Drinks", ""], description=["Loose leaves", None])
    assert read_catalogue(path, columns={}).texts() == ["Green tea. Drinks. Leaf. Loose leaves", "Mug"]


def test_a_missing_title_is_empty_not_refused(tmp_path):
    assert read_catalogue(write(tmp_path, title=["Tea", None]), columns={}).titles == ("Tea", "")


def test_columns_are_mapped(tmp_path):
    path = write(tmp_path).rename(tmp_path / "x.parquet")
    catalogue = read_catalogue(path, columns={"title": "colour", "category": "brand"})
    assert catalogue.titles == ("green", "white")
    assert catalogue.attributes.columns == ["category", "price", "title (file)"]


def test_writing_and_reading_gives_an_equal_digest(tmp_path):
    catalogue = read_catalogue(write(tmp_path), columns={})
    write_catalogue(catalogue, tmp_path / "again.parquet")
    assert read_catalogue(tmp_path / "again.parquet", columns={}).digest() == catalogue.digest()


@pytest.mark.parametrize("change", [{"title": ["Green tea", "Cup"]}, {"price": [3, None]}, {"item_id": ["b", "c"]}])
def test_any_change_of_content_changes_the_digest(tmp_path, change):
    before = read_catalogue(write(tmp_path), columns={}).digest()
    assert read_catalogue(write(tmp_path, **change), columns={}).digest() != before


def test_order_lines_serve_as_a_catalogue_when_titles_agree(tmp_path):
    path = write(tmp_path, item_id=["a", "a"], title=["Mug", "Mug "])
    assert read_catalogue(path, columns={}).item_ids == ("a",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_id": ["a", "a"]}, r"row 2: item_id='a' has a second title 'Mug'"),
        ({"item_id": ["a", None]}, r"row 2: item_id=None: expected an item's id"),
        ({"price": [1.0, float("nan")]}, r"row 2: price=nan: expected a finite price >= 0"),
        ({"price": ["dear", "1"]}, r"row 1: price='dear': expected a finite price"),
        ({"price": [1.0, -2.0]}, r"row 2: price=-2.0: expected"),
        ({"title": [["a"], ["b"]]}, r"column 'title' has type List\(String\), which cannot be a title"),
    ],
)
def test_a_bad_item_names_file_row_and_column(tmp_path, change, message):
    with pytest.raises(DataError, match=r"items\.parquet: " + message):
        read_catalogue(write(tmp_path, **change), columns={})


def test_an_image_may_be_a_vector(tmp_path):
    catalogue = read_catalogue(write(tmp_path, image=[[0.1, 0.2], [0.3, 0.4]]), columns={})
    assert catalogue.attributes["image"].to_list() == [[0.1, 0.2], [0.3, 0.4]]


def test_an_event_of_an_unknown_item_is_refused_with_its_row(tmp_path):
    catalogue = read_catalogue(write(tmp_path), columns={})
    events = pl.DataFrame({"item_id": ["a", "x", "b", "y"]})
    with pytest.raises(DataError, match=r"shop\.csv: row 2: item_id='x' is not in the catalogue \(2 such rows\)"):
        refuse_unknown_items(events, catalogue, source="shop.csv")
    refuse_unknown_items(events.filter(pl.col("item_id").is_in(["a", "b"])), catalogue, source="shop.csv")


def test_a_catalogue_made_of_events_takes_each_items_most_frequent_title():
    events = pl.DataFrame(
        {
            "item_id": ["z", "a", "a", "a", "b", "b"],
            "title": [None, "Mug", " mug?", "Mug ", "Tea  pot", "Pot"],
            "price": [1.0, 2.0, 4.0, 9.0, 1.0, 2.0],
        }
    )
    catalogue = catalogue_from_events(events)
    assert catalogue.item_ids == ("a", "b", "z")
    assert catalogue.titles == ("Mug", "Pot", "")
    assert catalogue.attributes["price"].to_list() == [4.0, 1.5, 1.0]


def test_no_catalogue_can_be_made_without_titles():
    with pytest.raises(DataError, match="the events carry no title; map title=COLUMN or give a catalogue"):
        catalogue_from_events(pl.DataFrame({"item_id": ["a"]}))


def test_a_catalogue_with_a_repeated_item_cannot_be_built():
    with pytest.raises(DataError, match="an item_id appears twice"):
        Catalogue(("a", "a"), ("x", "y"), pl.DataFrame())
    with pytest.raises(DataError, match="2 items but 1 titles"):
        Catalogue(("a", "b"), ("x",), pl.DataFrame())
