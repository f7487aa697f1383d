from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fedrec.data.click_table import read_click_table
from fedrec.errors import DataError
from fedrec.model.impressions import Category, ClickSpec

ROWS = "user_id,clicked,price,brand,more\n007,1,2.5,acme,x\nb,0,,,x\n007,FALSE,-1e3,other,x\n"
FIELDS = {"numbers": ["price"], "categories": ["brand"]}
SPEC = ClickSpec(("price",), 2, (Category("brand", ("acme",)),))


def _file(folder: Path, text: str = ROWS) -> Path:
    (folder / "shown.csv").write_text(text)
    return folder / "shown.csv"


def test_a_file_becomes_impressions_by_person(tmp_path: Path) -> None:
    table = read_click_table(_file(tmp_path), **FIELDS)
    assert table.people.tolist() == ["007", "b", "007"]
    assert table.clicked.tolist() == [True, False, False]
    assert table.fields.columns == ["price", "brand"]
    assert table.fields["price"].to_list() == [2.5, None, -1000.0]
    read = table.read(SPEC)
    assert read.offsets.tolist() == [0, 2, 3]
    assert read.slots.tolist() == [[3, 5], [0, 6], [4, 6]]
    assert table.where(np.array([False, True, True])).people.tolist() == ["b", "007"]


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    columns = {"user_id": ["007", "b", "007"], "clicked": [True, False, False], "price": [2.5, None, -1000.0]}
    pl.DataFrame(columns | {"brand": ["acme", None, "other"]}).write_parquet(tmp_path / "shown.parquet")
    ours, theirs = (read_click_table(path, **FIELDS) for path in (tmp_path / "shown.parquet", _file(tmp_path)))
    assert ours.read(SPEC).slots.tolist() == theirs.read(SPEC).slots.tolist()
    assert ours.clicked.tolist() == theirs.clicked.tolist()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("clicked", "click", r"shown\.csv: no column 'clicked'; the file has user_id, click, price, brand, more"),
        ("price", "cost", r"shown\.csv: no column 'price'; the file has"),
        ("FALSE", "maybe", r"shown\.csv: row 3: clicked: expected 0 or 1"),
        ("-1e3", "cheap", r"shown\.csv: row 3: price: expected a number, or an empty cell"),
        ("\nb,0", "\n,0", r"shown\.csv: row 2: user_id: expected an id"),
    ],
)
def test_files_that_cannot_be_read_are_refused_by_their_place(before, after, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_click_table(_file(tmp_path, ROWS.replace(before, after, 1)), **FIELDS)
