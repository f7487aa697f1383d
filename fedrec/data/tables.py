"""Any supported file as a table of named columns, and files that appear whole or not at all."""

import contextlib
import gzip
import io
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import polars as pl

from fedrec.errors import ConfigError, DataError

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".inter", ".item")
_ATOMIC_FILE_SUFFIXES = (".inter", ".item")  # RecBole: tab separated, "name:type" headers, no quoting
_ATOMIC_FILE_TYPES = ("token", "token_seq", "float", "float_seq")


def read_table(path: Path) -> pl.DataFrame:
    """Read a Parquet, CSV, TSV (plain or gzip) or RecBole atomic file.

    Columns of text formats stay text, so that an id ``007`` keeps its zeros; typing is the caller's.

    Raises:
        DataError: absent, of another format, empty, not UTF-8 (the line is named) or malformed.
    """
    suffix = _suffix(path)
    try:
        if suffix == ".parquet":
            frame = pl.read_parquet(path)
        else:
            content = gzip.decompress(path.read_bytes()) if suffix.endswith(".gz") else path.read_bytes()
            frame = _parse_text(path, content, suffix=suffix.removesuffix(".gz"))
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: cannot be read: {reason}") from None
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: is not a valid {suffix.lstrip('.')} file: {_first_line(error)}") from None
    if frame.height == 0:
        raise DataError(f"{path}: has no rows")
    return frame


def take_fields(
    frame: pl.DataFrame, fields: Sequence[str], *, required: Sequence[str], columns: Mapping[str, str], path: Path
) -> tuple[pl.DataFrame, dict[str, str]]:
    """Rename the file's columns to our fields; every other column is kept under its own name.

    Args:
        frame: the file as read.
        fields: every field that may be mapped, in the order wanted.
        required: the fields that must be there.
        columns: our field = the file's column, for names that differ.
        path: for the messages.

    Returns:
        The frame (our fields first) and, for each field present, the file's column it came from.

    Raises:
        ConfigError: ``columns`` names a field that does not exist.
        DataError: a required or mapped column is not in the file.
    """
    for field in columns:
        if field not in fields:
            raise ConfigError(
                f"column mapping {field}={columns[field]}: no field {field!r}; expected one of {', '.join(fields)}"
            )
    claimed = set(columns.values())  # a column that is mapped is not also read under its own name
    source = {
        field: columns.get(field, field) for field in fields if field in (*columns, *required) or field not in claimed
    }
    for field in (*required, *columns):
        if source[field] not in frame.columns:
            raise DataError(
                f"{path}: no column {source[field]!r} for the field {field!r}; the file has "
                f"{_listing(frame.columns)}; map it as {field}=COLUMN"
            )
    present = {field: column for field, column in source.items() if column in frame.columns}
    chosen = [pl.col(column).alias(field) for field, column in present.items()]
    # A file may have a column of its own under a name that the mapping gives to another: keep both.
    rest = [
        pl.col(name).alias(f"{name} (file)" if name in present else name)
        for name in frame.columns
        if name not in present.values()
    ]
    return frame.select(*chosen, *rest), present


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place.

    Raises:
        DataError: the folder or file cannot be written; ``path`` keeps its old content.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _suffix(path: Path) -> str:
    """The known ending of a file's name, lower case."""
    name = path.name.lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix):
            return suffix
    raise DataError(f"{path}: unknown kind of file; expected one of {', '.join(SUFFIXES)}")


def _parse_text(path: Path, content: bytes, *, suffix: str) -> pl.DataFrame:
    """Delimited text as columns of strings."""
    if not content.strip():
        raise DataError(f"{path}: is empty")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {line}: is not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    is_atomic_file = suffix in _ATOMIC_FILE_SUFFIXES
    frame = pl.read_csv(
        io.BytesIO(content),
        separator="," if suffix == ".csv" else "\t",
        quote_char=None if is_atomic_file else '"',
        infer_schema=False,
    )
    return frame.rename(_without_type) if is_atomic_file else frame


def _without_type(header: str) -> str:
    """``user_id:token`` -> ``user_id``."""
    name, _, kind = header.rpartition(":")
    return name if name and kind in _ATOMIC_FILE_TYPES else header


def _listing(names: Sequence[str], *, limit: int = 12) -> str:
    """Names for a message, the first few."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def _first_line(error: Exception) -> str:
    """The first line of a library's message, so that ours stays one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
