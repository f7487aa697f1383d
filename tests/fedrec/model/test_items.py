import dataclasses
import logging

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from fedrec.data.bundled import BUNDLED_ITEM_VECTORS, load_bundled
from fedrec.data.catalogue import Catalogue
from fedrec.errors import ConfigError, DataError
from fedrec.model.encoder import HashingEncoder
from fedrec.model.items import (
    Whitening,
    bundled_vectors,
    catalogue_vectors,
    item_vectors,
    read_item_metadata,
    read_item_vectors,
    write_item_vectors,
)

TITLES = ("red mug", "blue mug", "paper lantern", "lantern of paper", "tin box")


def make_catalogue(titles=TITLES) -> Catalogue:
    return Catalogue(tuple(f"i{n}" for n in range(len(titles))), tuple(titles), pl.DataFrame())


class CountingEncoder(HashingEncoder):
    """A hashing encoder that knows how often it was asked."""

    def __init__(self, digest=HashingEncoder.digest):
        self.digest = digest
        self.calls = 0

    def encode(self, texts, *, progress=None):
        self.calls += 1
        return super().encode(texts, progress=progress)


def only_file(folder):
    (path,) = folder.iterdir()
    return path


def test_the_second_call_reads_the_same_bits_from_the_cache(tmp_path):
    encoder = CountingEncoder()
    first = item_vectors(make_catalogue(), encoder, cache_dir=tmp_path / "cache")
    second = item_vectors(make_catalogue(), encoder, cache_dir=tmp_path / "cache")
    assert encoder.calls == 1
    assert first.dtype == np.float32
    assert first.shape == (5, 384)
    assert (first == second).all()


def test_vectors_are_the_encoders_to_half_precision():
    np.testing.assert_allclose(
        item_vectors(make_catalogue(), HashingEncoder(), cache_dir=None), HashingEncoder().encode(TITLES), atol=1e-3
    )


def test_without_a_cache_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    item_vectors(make_catalogue(), HashingEncoder(), cache_dir=None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "titles", [("green mug", *TITLES[1:]), TITLES[::-1], TITLES[:4], ("red mugb", "lue mug", *TITLES[2:])]
)
def test_other_texts_are_encoded_afresh(tmp_path, titles):
    encoder = CountingEncoder()
    item_vectors(make_catalogue(), encoder, cache_dir=tmp_path)
    assert item_vectors(make_catalogue(titles), encoder, cache_dir=tmp_path).shape == (len(titles), 384)
    assert encoder.calls == 2


def test_another_encoder_has_its_own_cache(tmp_path):
    item_vectors(make_catalogue(), CountingEncoder(), cache_dir=tmp_path)
    other = CountingEncoder(digest="0" * 64)
    item_vectors(make_catalogue(), other, cache_dir=tmp_path)
    assert other.calls == 1


@pytest.mark.parametrize("damage", ["truncated", "empty", "other shape", "not finite", "no such tensor", "noise"])
def test_a_damaged_cache_is_encoded_again_and_mended(tmp_path, damage, caplog):
    right = item_vectors(make_catalogue(), HashingEncoder(), cache_dir=tmp_path)
    path = only_file(tmp_path)
    whole = path.read_bytes()
    if damage in ("truncated", "empty", "noise"):
        path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "noise": b"\x99" * 500}[damage])
    else:
        broken = np.full((3, 384) if damage == "other shape" else (5, 384), np.nan, dtype=np.float16)
        save_file({"other" if damage == "no such tensor" else "vectors": broken}, path)
    with caplog.at_level(logging.WARNING):
        again = item_vectors(make_catalogue(), HashingEncoder(), cache_dir=tmp_path)
    assert (again == right).all()
    assert path.read_bytes() == whole
    assert "item_cache=unusable" in caplog.text


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(DataError, match=r"items-.*safetensors: cannot be written: No space left on device"):
        item_vectors(make_catalogue(), HashingEncoder(), cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unusable_cache_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"items-.*safetensors: cannot be written"):
        item_vectors(make_catalogue(), HashingEncoder(), cache_dir=tmp_path / "file")


def test_an_encoder_that_overflows_is_refused(tmp_path):
    class Loud(HashingEncoder):
        def encode(self, texts, *, progress=None):
            return super().encode(texts) * 1e30

    with pytest.raises(
        DataError, match=r"encoder hashing gave a vector that is not finite in fp16; use another encoder"
    ):
        item_vectors(make_catalogue(), Loud(), cache_dir=tmp_path)


def test_a_written_file_says_what_made_it(tmp_path):
    catalogue, encoder = make_catalogue(), HashingEncoder()
    write_item_vectors(
        encoder.encode(catalogue.texts()), tmp_path / "v.safetensors", catalogue=catalogue, encoder=encoder
    )
    assert read_item_metadata(tmp_path / "v.safetensors") == {
        "encoder": "hashing",
        "encoder_digest": encoder.digest,
        "catalogue_digest": catalogue.digest(),
        "items": "5",
    }


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((5, 3), dtype=np.float16), r"holds float16 \(5, 3\), expected float16 \(5, 4\)"),
        (np.zeros((5, 4), dtype=np.float32), r"holds float32 \(5, 4\), expected float16 \(5, 4\)"),
        (np.full((5, 4), np.inf, dtype=np.float16), r"holds a value that is not finite; encode again"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, vectors, message):
    save_file({"vectors": vectors}, tmp_path / "v.safetensors")
    with pytest.raises(DataError, match=message):
        read_item_vectors(tmp_path / "v.safetensors", shape=(5, 4))


def test_a_file_that_does_not_say_what_made_it_is_refused(tmp_path):
    save_file({"vectors": np.zeros((5, 4), dtype=np.float16)}, tmp_path / "v.safetensors")
    with pytest.raises(DataError, match=r"v\.safetensors: not a readable file of item vectors: 'made_by'"):
        read_item_metadata(tmp_path / "v.safetensors")


@pytest.mark.parametrize("read", [read_item_metadata, lambda path: read_item_vectors(path, shape=(5, None))])
def test_a_missing_file_is_refused(tmp_path, read):
    with pytest.raises(DataError, match=r"gone\.safetensors: not a readable file of item vectors"):
        read(tmp_path / "gone.safetensors")


@pytest.fixture(scope="module")
def bundled():
    return load_bundled()[1]


def test_the_shipped_vectors_fit_the_bundled_catalogue(bundled):
    vectors = bundled_vectors(bundled)
    assert vectors.shape == (len(bundled), 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=2e-3)
    assert read_item_metadata(BUNDLED_ITEM_VECTORS)["encoder"] == "all-MiniLM-L6-v2"
    assert BUNDLED_ITEM_VECTORS.stat().st_size < 3_000_000


def test_the_shipped_vectors_know_what_words_mean(bundled):
    vectors = bundled_vectors(bundled)
    place = {title: row for row, title in enumerate(bundled.titles)}
    teapot, teacup, bag = (
        place[t] for t in ("REGENCY TEA PLATE GREEN", "GREEN REGENCY TEACUP AND SAUCER", "JUMBO BAG RED RETROSPOT")
    )
    assert vectors[teapot] @ vectors[teacup] > vectors[teapot] @ vectors[bag] + 0.2


def test_shipped_vectors_are_refused_for_another_catalogue(bundled):
    other = dataclasses.replace(bundled, titles=("changed", *bundled.titles[1:]))
    with pytest.raises(
        DataError, match=r"made from catalogue [0-9a-f]{12}, not [0-9a-f]{12}; make them again with: fedrec"
    ):
        bundled_vectors(other)


def test_auto_means_shipped_for_the_bundled_set_and_hashing_elsewhere(bundled, tmp_path):
    options = {"local_files_only": True, "cache_dir": tmp_path}
    assert (catalogue_vectors(bundled, "auto", **options) == bundled_vectors(bundled)).all()
    assert not list(tmp_path.iterdir())
    elsewhere = catalogue_vectors(make_catalogue(), "auto", **options)
    assert (elsewhere == item_vectors(make_catalogue(), HashingEncoder(), cache_dir=None)).all()


def texts_like(rng, items=400, width=24) -> np.ndarray:
    """Vectors with a common direction and unevenly spread others, as sentence encoders give."""
    return (rng.normal(size=(items, width)) * np.linspace(3, 0.2, width) + 2.0).astype(np.float32)


def test_whitening_without_damping_gives_unit_covariance():
    vectors = texts_like(np.random.default_rng(0))
    fitted = Whitening.fit(vectors, dimensions=24, damping=0.0)
    projected = (vectors - fitted.mean) @ fitted.projection
    np.testing.assert_allclose(projected.T @ projected / len(vectors), np.eye(24), atol=1e-6)


def test_damping_follows_the_formula():
    vectors = texts_like(np.random.default_rng(1))
    fitted = Whitening.fit(vectors, dimensions=5, damping=0.5)
    values = np.linalg.eigvalsh(np.cov(vectors.T.astype(np.float64), bias=True))[::-1]
    projected = (vectors - fitted.mean) @ fitted.projection
    np.testing.assert_allclose(projected.var(axis=0), values[:5] / (values[:5] + 0.5 * values.mean()), rtol=1e-6)


def test_whitened_rows_have_length_one():
    vectors = texts_like(np.random.default_rng(2))
    whitened = Whitening.fit(vectors, dimensions=8, damping=0.1).apply(vectors)
    assert whitened.shape == (400, 8)
    assert whitened.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whitened, axis=1), 1.0, rtol=1e-5)


def test_turning_the_encoders_axes_does_not_change_similarity():
    rng = np.random.default_rng(3)
    vectors = texts_like(rng).astype(np.float64)
    turn = np.linalg.qr(rng.normal(size=(24, 24)))[0]
    plain, turned = (Whitening.fit(v, dimensions=10, damping=0.1).apply(v) for v in (vectors, vectors @ turn))
    np.testing.assert_allclose(plain @ plain.T, turned @ turned.T, atol=1e-4)


def test_columns_beyond_the_rank_are_zero_and_the_shape_is_as_asked():
    vectors = texts_like(np.random.default_rng(4), items=4)  # four items span three directions
    for damping in (0.0, 0.1):
        whitened = Whitening.fit(vectors, dimensions=40, damping=damping).apply(vectors)
        assert whitened.shape == (4, 40)
        assert (whitened[:, 3:] == 0).all()
        np.testing.assert_allclose(np.linalg.norm(whitened, axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("items", [1, 6])
def test_items_that_are_all_alike_become_zeros_and_not_noise(items):
    vectors = np.full((items, 7), 0.3, dtype=np.float32)
    assert (Whitening.fit(vectors, dimensions=3, damping=0.1).apply(vectors) == 0).all()


def test_a_new_item_is_whitened_by_the_same_map():
    vectors = texts_like(np.random.default_rng(5))
    fitted = Whitening.fit(vectors, dimensions=8, damping=0.1)
    np.testing.assert_allclose(fitted.apply(vectors[:1]), fitted.apply(vectors)[:1], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimensions": 0, "damping": 0.1}, r"dimensions=0: expected >= 1; set items\.dimensions"),
        ({"dimensions": 2, "damping": -0.1}, r"damping=-0\.1: expected a finite number >= 0; set items\.damping"),
        ({"dimensions": 2, "damping": np.nan}, r"damping=nan: expected a finite number >= 0; set items\.damping"),
    ],
)
def test_whitening_out_of_range_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Whitening.fit(np.eye(3, dtype=np.float32), **options)
