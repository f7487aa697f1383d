"""What search learned is read back as it was, or refused in one line."""

import json
import re

import numpy as np
import pytest

from fedrec.errors import RunError
from fedrec.model.encoder import HashingEncoder
from fedrec.model.learned_query import ARRAYS, MANIFEST, LearnedQuery, load_learned, save_learned
from fedrec.runfolder import write_arrays

WIDTH = HashingEncoder.dimension


def learned(**changes) -> LearnedQuery:
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
    return LearnedQuery(**({**arrays, "words": 0.3, "meaning": 0.95} | changes))


SHAPES = {"down": (2, WIDTH), "up": (WIDTH, 2)}


@pytest.fixture
def folder(tmp_path):
    save_learned(learned(), tmp_path / "learned", encoder=HashingEncoder())
    return tmp_path / "learned"


def replaced(folder, **changes):
    """A folder whose arrays were changed by somebody who put the digest right."""
    import hashlib

    kept = learned()
    arrays = {"down": kept.down, "up": kept.up, "mix": np.array([kept.words, kept.meaning])} | changes
    write_arrays(folder / ARRAYS, {name: values for name, values in arrays.items() if values is not None})
    about = json.loads((folder / MANIFEST).read_text())
    about["sha256"] = hashlib.sha256((folder / ARRAYS).read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(about))


def refusal(folder, encoder=None) -> str:
    with pytest.raises(RunError) as caught:
        load_learned(folder, encoder or HashingEncoder())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_is_read_back_to_the_last_bit(folder):
    found, kept = load_learned(folder, HashingEncoder()), learned()
    assert (found.down == kept.down).all()
    assert (found.up == kept.up).all()
    assert (found.words, found.meaning) == (0.3, 0.95)
    assert json.loads((folder / MANIFEST).read_text())["privacy"].startswith("NOT PRIVATE")


def test_an_existing_folder_is_not_overwritten(folder):
    with pytest.raises(RunError, match=rf"{re.escape(str(folder))}: exists; choose another place"):
        save_learned(learned(), folder, encoder=HashingEncoder())


def test_what_is_not_there_is_named(tmp_path):
    assert (
        refusal(tmp_path)
        == f"{tmp_path}: not a query adapter: No such file or directory; make one with fedrec tune-search"
    )


def test_a_changed_byte_is_noticed(folder):
    data = bytearray((folder / ARRAYS).read_bytes())
    data[-1] ^= 1
    (folder / ARRAYS).write_bytes(bytes(data))
    assert "damaged: not the file that query-adapter.json names; make it again" in refusal(folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{", "damaged; make it again"), ("[]", "of another version"), ('{"format": 2}', "of another version")],
)
def test_a_manifest_that_says_nothing_is_refused(folder, text, expected):
    (folder / MANIFEST).write_text(text)
    assert expected in refusal(folder)


def test_another_encoder_is_refused(folder):
    class Other(HashingEncoder):
        name, digest = "other", "0" * 64

    said = "trained beside encoder 'hashing', queries are read by 'other'; name that one with --encoder, or train again"
    assert said in refusal(folder, Other())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"up": np.zeros((WIDTH, 3), np.float32)}, "arrays of shapes (2, 384), (384, 3), (2,); the encoder gives 384"),
        ({"down": np.zeros((2, 8), np.float32), "up": np.zeros((8, 2), np.float32)}, "the encoder gives 384"),
        ({"up": np.zeros((WIDTH, 2))}, "arrays of other types than float32 and float64"),
        ({"up": np.full((WIDTH, 2), np.nan, np.float32)}, "a value is not finite"),
        ({"mix": np.array([np.inf, 1.0])}, "a value is not finite"),
        ({"mix": np.array([-0.1, 1.0])}, "weights of words and meaning: expected numbers >= 0, not both 0"),
        ({"mix": np.zeros(2)}, "weights of words and meaning: expected numbers >= 0, not both 0"),
        ({"mix": None}, "'mix'"),
    ],
)
def test_what_no_training_gives_is_refused(folder, changes, expected):
    replaced(folder, **changes)
    message = refusal(folder)
    assert message.startswith(f"{folder / ARRAYS}: not a query adapter: ")
    assert expected in message
