import gzip

import polars as pl
import pytest

from fedrec.data.tables import read_table, take_fields, write_atomically
from fedrec.errors import ConfigError, DataError


def test_text_columns_stay_text_so_that_ids_keep_their_zeros(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("user_id,n\n007,1.50\n")
    assert read_table(path).to_dicts() == [{"user_id": "007", "n": "1.50"}]


def test_every_format_reads_the_same_table(tmp_path):
    frame = pl.DataFrame({"item_id": ["a", "b"], "title": ['17" screen', "Tea, green"]})
    frame.write_csv(tmp_path / "t.csv")
    frame.write_csv(tmp_path / "t.tsv", separator="\t")
    frame.write_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "t.csv").read_bytes())
    (tmp_path / "t.item").write_text('item_id:token\ttitle:token_seq\na\t17" screen\nb\tTea, green\n')
    for name in ("t.csv", "t.tsv", "t.parquet", "t.csv.gz", "bom.csv", "t.item"):
        assert read_table(tmp_path / name).to_dicts() == frame.to_dicts(), name


@pytest.mark.parametrize("name", ["e.csv", "e.tsv", "e.inter"])
def test_an_empty_file_is_named(tmp_path, name):
    (tmp_path / name).write_text("\n")
    with pytest.raises(DataError, match=rf"{name}: is empty"):
        read_table(tmp_path / name)


def test_a_header_alone_has_no_rows(tmp_path):
    (tmp_path / "h.csv").write_text("user_id,item_id,timestamp\n")
    with pytest.raises(DataError, match=r"h\.csv: has no rows"):
        read_table(tmp_path / "h.csv")


def test_text_that_is_not_utf8_is_refused_with_its_line(tmp_path):
    (tmp_path / "latin.csv").write_bytes("user_id,item_id\nu,a\nu,café\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv: line 3: is not UTF-8 \(byte 25\)"):
        read_table(tmp_path / "latin.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.parquet", b"not parquet", "is not a valid parquet file"),
        ("x.csv.gz", b"not gzip", "cannot be read"),
        ("x.csv", b"a,b\n1,2\n1,2,3\n", "is not a valid csv file"),
        ("x.xlsx", b"", "unknown kind of file; expected one of .parquet, .csv"),
    ],
)
def test_a_malformed_file_is_one_line_naming_it(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as refusal:
        read_table(tmp_path / name)
    assert f"{name}: {message}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_truncated_gzip_is_refused(tmp_path):
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 1000)[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "x.csv.gz")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv: cannot be read: No such file"):
        read_table(tmp_path / "gone.csv")


def test_a_mapping_renames_and_loses_no_column(tmp_path):
    frame = pl.DataFrame({"customer": ["c"], "user_id": ["session"], "sku": ["s"], "Country": ["FR"]})
    taken, source = take_fields(
        frame,
        ("user_id", "item_id", "price"),
        required=("user_id", "item_id"),
        columns={"user_id": "customer", "item_id": "sku"},
        path=tmp_path,
    )
    assert taken.to_dicts() == [{"user_id": "c", "item_id": "s", "user_id (file)": "session", "Country": "FR"}]
    assert source == {"user_id": "customer", "item_id": "sku"}


def test_a_missing_column_is_named_with_those_there_are(tmp_path):
    with pytest.raises(
        DataError, match=r"no column 'user_id' for the field 'user_id'; the file has 'a', 'b'; map it as"
    ):
        take_fields(pl.DataFrame({"a": [1], "b": [2]}), ("user_id",), required=("user_id",), columns={}, path=tmp_path)


def test_a_long_list_of_columns_is_cut_in_the_message(tmp_path):
    frame = pl.DataFrame({f"c{n}": [1] for n in range(40)})
    with pytest.raises(DataError, match=r"'c11' and 28 more"):
        take_fields(frame, ("user_id",), required=("user_id",), columns={}, path=tmp_path)


def test_a_mapping_of_an_unknown_field_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="column mapping usr=a: no field 'usr'; expected one of user_id"):
        take_fields(pl.DataFrame({"a": [1]}), ("user_id",), required=(), columns={"usr": "a"}, path=tmp_path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "f.json"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"f\.json: cannot be written: No space left"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["f.json"]


def test_a_reader_of_the_old_file_never_sees_a_half_written_one(tmp_path):
    path = tmp_path / "f.json"
    path.write_text("old")
    with path.open() as reader:
        write_atomically(path, lambda temporary: temporary.write_text("new"))
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "x.json", lambda temporary: temporary.write_text(""))
