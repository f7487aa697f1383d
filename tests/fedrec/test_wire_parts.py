"""A message of few bytes that names them many times is refused before it takes up the memory."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import add_header_to_object_body, get_all_nested_objects

from fedrec.errors import WireError
from fedrec.wire_parts import MAX_WORDS_BYTES, check_parts

DEFLATE = Array.deflate


def naming(chunks: object) -> Callable[[Array], bytes]:
    """What writes an array whose part says that it consists of these chunks."""

    def deflate(array: Array) -> bytes:
        written = DEFLATE(array)
        body = json.loads(written[written.index(b"\0") + 1 :]) | {"arraychunk_ids": chunks}
        return add_header_to_object_body(json.dumps(body).encode(), array)

    return deflate


def parts_of(record: RecordDict) -> dict[str, bytes]:
    return {number: part.deflate() for number, part in get_all_nested_objects(record).items()}


def numbers(count: int = 1000) -> RecordDict:
    return RecordDict({"update": ArrayRecord({"x": Array(np.arange(count, dtype=np.float32))})})


def test_what_flower_writes_passes_up_to_its_size() -> None:
    parts = parts_of(numbers())
    size = len(numbers()["update"]["x"].data)
    check_parts(parts, max_bytes=size + 100)
    with pytest.raises(WireError, match=r"message: expected at most 3999 bytes"):
        check_parts(parts, max_bytes=3999)


def test_equal_chunks_that_flower_sends_once_count_as_often_as_they_stand(monkeypatch) -> None:
    monkeypatch.setattr(Array, "deflate", naming([0] * 1000))  # 4 kB that become 4 MB
    parts = parts_of(numbers())
    assert sum(map(len, parts.values())) < 20_000
    check_parts(parts, max_bytes=5_000_000)
    with pytest.raises(WireError, match=r"message: expected at most 4000000 bytes"):
        check_parts(parts, max_bytes=4_000_000)


@pytest.mark.parametrize("chunks", [[1], ["0"], [None], 7, [[0]]])
def test_chunks_that_are_none_are_refused(chunks, monkeypatch) -> None:
    monkeypatch.setattr(Array, "deflate", naming(chunks))
    with pytest.raises(WireError, match=r"message: cannot be read \((IndexError|TypeError)\)"):
        check_parts(parts_of(numbers()), max_bytes=10**9)


def test_a_long_part_of_words_is_refused_unread() -> None:
    parts = parts_of(RecordDict({"header": ConfigRecord({"word": "x" * MAX_WORDS_BYTES})}))
    with pytest.raises(WireError, match=r"a part without numbers of more than 1048576 bytes"):
        check_parts(parts, max_bytes=10**9)
    with pytest.raises(WireError, match=r"cannot be read \(ValueError\)"):
        check_parts({"0": b"no head"}, max_bytes=10**9)
