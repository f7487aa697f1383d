"""``fedrec pretrain``: a whole base or none, which ``fedrec simulate --base`` takes."""

import json

import pytest
from safetensors.numpy import load_file

from fedrec.data.histories import Histories
from fedrec.model.base import FILES, base_digest, load_base
from tests.tiny_run import PEOPLE, Bench, catalogue_rows, event_rows, fedrec, write_csv


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A base, the bench it was made on, and what ``--json`` printed."""
    bench = Bench.at(tmp_path_factory.mktemp("pretrain"))
    return bench, make(bench, "--json")


def make(bench, *flags, out=None):
    return fedrec("pretrain", *bench.inputs, "--out", out or bench.folder / "base", *flags, home=bench.folder)


def test_json_prints_one_document_that_describes_the_base(made):
    bench, outcome = made
    folder = bench.folder / "base"
    assert outcome.exit_code == 0
    about = json.loads(outcome.stdout)
    assert about == {"base": str(folder), "digest": base_digest(folder), "people": 96, "items": 40}
    assert load_base(folder).items == 40


def test_people_to_judge_on_are_kept_aside(made):
    bench, outcome = made
    kept = Histories.load(bench.folder / "base" / "panel.safetensors")
    assert len(kept) == round(0.2 * PEOPLE)
    assert len(kept) + json.loads(outcome.stdout)["people"] == PEOPLE


def test_nothing_but_the_base_is_left(made):
    bench, _ = made
    names = {path.name for path in (bench.folder / "base").iterdir()}
    files = {*FILES, "panel.safetensors", "catalogue.sha256"}
    assert names == files
    assert {path.name for path in bench.folder.iterdir()} <= {"base", "events.csv", "items.csv", "tiny.toml", ".cache"}


def test_same_seed_gives_the_same_base_and_another_seed_does_not(made, tmp_path):
    bench, outcome = made
    digest = json.loads(outcome.stdout)["digest"]
    same, other = make(bench, "--json", out=tmp_path / "a"), make(bench, "--json", "--seed", 1, out=tmp_path / "b")
    assert json.loads(same.stdout)["digest"] == digest
    assert json.loads(other.stdout)["digest"] != digest


def test_epochs_change_the_ranker_and_none_leave_it_as_built(made, tmp_path):
    bench, _ = made
    assert make(bench, "--epochs", 0, out=tmp_path / "none").exit_code == 0
    trained, untrained = (
        load_file(folder / "ranker.safetensors") for folder in (bench.folder / "base", tmp_path / "none")
    )
    assert any((trained[name] != untrained[name]).any() for name in trained)


def test_simulate_takes_the_base_as_it_is(made, tmp_path):
    bench, outcome = made
    base = bench.folder / "base"
    assert bench.simulate("--base", base, "--no-dp", out=tmp_path / "run").exit_code == 0
    assert base_digest(tmp_path / "run" / "base") == json.loads(outcome.stdout)["digest"]


def test_a_base_of_another_catalogue_is_refused_in_one_line(made, tmp_path):
    bench, _ = made
    other = Bench.at(tmp_path)
    write_csv(other.catalogue, [*catalogue_rows(), {"item_id": "i40", "title": "new sign", "price": 1}])
    outcome = other.simulate("--base", bench.folder / "base", "--no-dp")
    assert outcome.exit_code == 2
    assert "base: made for 40 items, the catalogue has 41; pretrain with this catalogue" in outcome.stderr
    assert not other.out.exists()


def test_without_json_it_says_where_the_base_is(made, tmp_path):
    bench, _ = made
    outcome = make(bench, "--epochs", 0, out=tmp_path / "base")
    digest = base_digest(tmp_path / "base")
    assert outcome.stdout == f"{tmp_path / 'base'}: base {digest[:12]}, 40 items\n"
    assert "stage='encoding items' step=40/40" in outcome.stderr


def refused(outcome, message):
    assert outcome.exit_code == 2
    assert outcome.stdout == ""
    assert outcome.stderr.splitlines()[-1].startswith("error: ")
    assert message in outcome.stderr.splitlines()[-1]


def test_an_existing_folder_is_not_touched(made):
    bench, _ = made
    before = base_digest(bench.folder / "base")
    refused(make(bench), "base: exists; choose another --out")
    assert base_digest(bench.folder / "base") == before


def test_a_file_in_place_of_the_folder_above_is_one_line(tmp_path):
    bench = Bench.at(tmp_path)
    (tmp_path / "file").write_text("")
    refused(make(bench, out=tmp_path / "file" / "base"), "cannot be written: File exists; choose another --out")


def test_one_person_is_too_few(tmp_path):
    bench = Bench.at(tmp_path)
    write_csv(bench.events, event_rows(people=1))
    refused(make(bench), "1 person has enough events; a base needs at least two")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", -1], "flags: pretraining.epochs=-1: Input should be greater than or equal to 0"),
        (["--encoder", "./nowhere"], "encoder './nowhere': no such folder"),
        (["--map", "user_id"], "--map user_id: expected FIELD=COLUMN"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(flags, message, tmp_path):
    bench = Bench.at(tmp_path)
    before = set(tmp_path.iterdir())
    refused(make(bench, *flags), message)
    assert set(tmp_path.iterdir()) - before <= {tmp_path / ".cache"}


def test_a_crash_leaves_no_half_base(tmp_path, monkeypatch):
    bench = Bench.at(tmp_path)

    def half(config, catalogue, folder, **others):
        folder.mkdir()
        (folder / "items.safetensors").write_bytes(b"half")
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("fedrec.model.making.make_base", half)
        with pytest.raises(ZeroDivisionError):
            make(bench)
    assert {path.name for path in tmp_path.iterdir()} <= {"events.csv", "items.csv", "tiny.toml", ".cache"}
    assert make(bench, "--epochs", 0).exit_code == 0
