import json

import numpy as np
import pytest
from typer.testing import CliRunner

from fedrec.cli.items import items_app
from fedrec.model.encoder import HashingEncoder
from fedrec.model.items import read_item_vectors


@pytest.fixture
def catalogue(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("item_id,name\na,red mug\nb,blue mug\n")
    return path


def run(*arguments):
    return CliRunner().invoke(items_app, ["encode", *map(str, arguments)])


def test_a_catalogue_is_encoded_into_a_file(catalogue, tmp_path):
    out = tmp_path / "new" / "vectors.safetensors"
    result = run("--catalogue", catalogue, "--map-catalogue", "title=name", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    written = json.loads(result.stdout)
    assert written["encoder"] == "hashing"
    assert written["items"] == "2"
    assert written["dimension"] == 384
    assert written["bytes"] == out.stat().st_size
    vectors = read_item_vectors(out, shape=(2, 384))
    np.testing.assert_allclose(vectors, HashingEncoder().encode(["red mug", "blue mug"]), atol=1e-3)


def test_without_json_the_result_is_for_people(catalogue, tmp_path):
    result = run("--catalogue", catalogue, "--map-catalogue", "title=name", "--out", tmp_path / "v.safetensors")
    assert "encoder           hashing" in result.stdout


def test_the_bundled_set_is_the_default(tmp_path):
    assert json.loads(run("--out", tmp_path / "v.safetensors", "--json").stdout)["items"] == "3659"


def test_a_mapping_without_a_catalogue_is_refused_in_one_line(tmp_path):
    result = run("--map-catalogue", "title=name", "--out", tmp_path / "v.safetensors")
    assert result.exit_code == 2
    assert result.stderr == "error: --map-catalogue needs --catalogue: the bundled set's columns are known\n"


def test_a_malformed_mapping_is_refused(catalogue, tmp_path):
    result = run("--catalogue", catalogue, "--map-catalogue", "title", "--out", tmp_path / "v.safetensors")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --map-catalogue title: expected FIELD=COLUMN")


def test_an_encoder_that_is_not_there_is_refused(catalogue, tmp_path):
    out = tmp_path / "v.safetensors"
    result = run("--catalogue", catalogue, "--map-catalogue", "title=name", "--out", out, "--encoder", str(tmp_path))
    assert result.exit_code == 2
    assert "no readable config.json" in result.stderr
    assert not out.exists()
