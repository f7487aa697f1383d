"""The file of an index is whole or not there, and of the catalogue that it is asked for."""

import os
import re
import signal
import subprocess
import sys

import polars as pl
import pytest

from clients.serving.fulltext import FullTextIndex, cached_index, write_index
from fedrec.data.catalogue import catalogue_of
from fedrec.errors import DataError
from tests.clients.serving.tiny_shop import ROWS, shop
from tests.tiny_run import ROOT


@pytest.fixture
def path(tmp_path):
    write_index(shop(), tmp_path / "words.sqlite")
    return tmp_path / "words.sqlite"


def other_shop():
    return catalogue_of(pl.DataFrame({"item_id": [row[0] for row in ROWS], "title": ["green tin"] * len(ROWS)}))


@pytest.mark.parametrize("typed", ["red mug", "wireles headph", "cafe"])
def test_a_file_answers_as_memory_does(path, typed):
    index = FullTextIndex.open(path, shop())
    assert index.search(typed, most=10) == FullTextIndex.build(shop()).search(typed, most=10)
    index.close()


def test_a_path_may_hold_what_an_address_may_not(tmp_path):
    path = tmp_path / "a b?mode=rwc#%20.sqlite"
    write_index(shop(), path)
    FullTextIndex.open(path, shop()).close()


def test_reading_leaves_the_file_and_its_folder_as_they_are(path):
    before = path.read_bytes()
    FullTextIndex.open(path, shop()).close()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_file_of_another_catalogue_is_refused(path):
    with pytest.raises(DataError, match=rf"{re.escape(str(path))}: made from another catalogue or by another version"):
        FullTextIndex.open(path, other_shop())


@pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_index_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{re.escape(str(path))}: not a usable full-text index: .*; make it again"):
        FullTextIndex.open(path, shop())


def test_a_truncated_file_is_refused_or_says_so_when_asked(path):
    whole = path.read_bytes()
    for size in range(0, len(whole), 2048):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"words.sqlite: (not a usable|made from another) .*; make it again"):
            FullTextIndex.open(path, shop()).search("red mug", most=10)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"words.sqlite: no full-text index there"):
        FullTextIndex.open(tmp_path / "words.sqlite", shop())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/words.sqlite: cannot be written"):
        write_index(shop(), tmp_path / "file" / "words.sqlite")


def test_a_cached_index_is_made_once_and_again_when_it_is_damaged(tmp_path):
    cached_index(shop(), tmp_path).close()
    (file,) = tmp_path.iterdir()
    whole, made_at = file.read_bytes(), file.stat().st_mtime_ns
    cached_index(shop(), tmp_path).close()
    assert file.stat().st_mtime_ns == made_at
    file.write_bytes(whole[:100])
    assert cached_index(shop(), tmp_path).search("red mug", most=1)
    cached_index(other_shop(), tmp_path).close()
    assert len(list(tmp_path.iterdir())) == 2


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import clients.serving.fulltext as fulltext
from tests.clients.serving.tiny_shop import shop
words, left = fulltext.words_of, [30]
def words_of(text):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return words(text)
fulltext.words_of = words_of
fulltext.write_index(shop(), Path(sys.argv[1]))
"""


def test_whoever_is_killed_while_writing_leaves_the_old_file(path):
    before = path.read_bytes()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-c", KILLED_WHILE_WRITING, str(path)]
    ended = subprocess.run(arguments, cwd=ROOT, env=environment, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
