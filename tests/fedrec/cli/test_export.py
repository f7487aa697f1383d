"""``fedrec export``: what it writes, what it prints, and what it refuses."""

import json

import pytest

from tests.tiny_run import fedrec


def test_int8_is_written_and_what_it_changes_is_told(counted_run, tmp_path):
    done = fedrec("export", counted_run.out, "--out", tmp_path / "model", "--int8", home=tmp_path)
    assert (done.exit_code, done.stderr) == (0, "")
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text(encoding="utf-8"))
    quality = manifest["int8_ndcg@10"]
    assert manifest["numbers"] == "int8"
    assert 0 < quality["float32"] <= 1
    assert quality["change"] == pytest.approx(quality["int8"] - quality["float32"])
    first, privacy, told = done.stdout.splitlines()
    assert first == f"{tmp_path}/model: version {manifest['version']}, 40 items, int8"
    assert privacy == manifest["privacy"]
    assert told.startswith(f"int8: NDCG@10 {quality['int8']:.4f} on the {quality['people']} people of the public panel")
    assert f"{quality['float32']:.4f} with float32 ({quality['change']:+.4f} ± " in told


def test_a_run_that_is_none_and_a_folder_that_is_there_are_refused(counted_run, tmp_path):
    refused = fedrec("export", tmp_path, "--out", tmp_path / "model", home=tmp_path)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"error: {tmp_path}: not the folder of a run: there is no agreement.json in it")
    taken = fedrec("export", counted_run.out, "--out", counted_run.out, home=tmp_path)
    assert (taken.exit_code, taken.stdout) == (2, "")
    assert taken.stderr == f"error: {counted_run.out}: exists; choose another place\n"
