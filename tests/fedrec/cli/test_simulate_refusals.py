"""Bad input to ``fedrec simulate``: one line that says what is wrong, an exit code, and no folder in the way."""

import os
import re

import pytest

from tests.tiny_run import Bench, catalogue_rows, event_rows, write_csv

USER, PRIVACY = 2, 3  # a mistake; a refusal to weaken the guarantee


def changed(rows, row, **values):
    """Rows with some values of one of them replaced; rows count from 1, as in messages."""
    return [entry | values if number == row else entry for number, entry in enumerate(rows, start=1)]


def without(rows, column):
    return [{name: value for name, value in row.items() if name != column} for row in rows]


def text_of(path):
    return path.read_text(encoding="utf-8")


def refused(outcome, *, code, message):
    """One ``error:`` line on stderr, last; nothing on stdout; the exit code."""
    assert outcome.exit_code == code, outcome.stderr
    assert outcome.stdout == ""
    lines = outcome.stderr.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert re.search(message, lines[-1]), lines[-1]


BAD_DATA = {
    "missing column": (
        lambda bench: write_csv(bench.events, without(event_rows(), "timestamp")),
        r"events\.csv: no column 'timestamp' for the field 'timestamp'; the file has .*map it as timestamp=COLUMN",
    ),
    "wrong type": (
        lambda bench: write_csv(bench.events, changed(event_rows(), 5, timestamp="yesterday")),
        r"events\.csv: row 5: timestamp='yesterday'",
    ),
    "empty file": (lambda bench: bench.events.write_bytes(b""), r"events\.csv: is empty"),
    "header alone": (
        lambda bench: bench.events.write_text("user_id,item_id,timestamp\n"),
        r"events\.csv: has no rows",
    ),
    "one person only": (
        lambda bench: write_csv(bench.events, event_rows(people=1)),
        "1 person in the data; a federation needs at least two",
    ),
    "unknown item": (
        lambda bench: write_csv(bench.events, changed(event_rows(), 7, item_id="i99")),
        r"events\.csv: row 7: item_id='i99' is not in the catalogue",
    ),
    "NaN price in the catalogue": (
        lambda bench: write_csv(bench.catalogue, changed(catalogue_rows(), 3, price="NaN")),
        r"items\.csv: row 3: price=.*finite price",
    ),
    "NaN price in the events": (
        lambda bench: write_csv(bench.events, changed([row | {"price": 1.0} for row in event_rows()], 4, price="NaN")),
        r"events\.csv: row 4: price=.*finite price",
    ),
    "not UTF-8": (
        lambda bench: bench.catalogue.write_bytes(text_of(bench.catalogue).replace("mug", "m\xfcg").encode("latin-1")),
        r"items\.csv: line 2: is not UTF-8",
    ),
    "negative timestamp": (
        lambda bench: write_csv(bench.events, changed(event_rows(), 9, timestamp=-1)),
        r"events\.csv: row 9: timestamp='?-1'?: expected a time of 0 or later",
    ),
    "absent file": (lambda bench: bench.events.unlink(), r"events\.csv: cannot be read: No such file"),
    "nobody with enough events": (
        lambda bench: write_csv(bench.events, event_rows()[:3]),
        "no person has 4 events or more; lower data.min_events",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_one_line_and_leaves_no_folder(spoil, message, tmp_path):
    bench = Bench.at(tmp_path)
    spoil(bench)
    refused(bench.simulate(), code=USER, message=message)
    assert not bench.out.exists()


BAD_FLAGS = {
    "epsilon 0": (["--epsilon", 0], USER, r"flags: privacy\.epsilon=0\.0: Input should be greater than 0"),
    "epsilon below 0": (["--epsilon", -1], USER, r"privacy\.epsilon=-1\.0: Input should be greater than 0"),
    "epsilon nan": (["--epsilon", "nan"], USER, r"privacy\.epsilon=nan: Input should be"),
    "epsilon infinite": (["--epsilon", "inf"], USER, r"privacy\.epsilon=inf: Input should be a finite number"),
    "delta 1": (["--delta", 1], USER, r"privacy\.delta=1\.0: Input should be less than 1"),
    "delta 0": (["--delta", 0], USER, r"privacy\.delta=0\.0: Input should be greater than 0"),
    "no clients": (["--clients", 0], USER, r"partition\.clients=0: Input should be greater than or equal to 1"),
    "no rounds": (["--rounds", 0], USER, r"federation\.rounds=0: Input should be greater than or equal to 1"),
    "rank 0": (["--rank", 0], USER, r"adapter\.rank=0: Input should be greater than or equal to 1"),
    "rank too large": (["--rank", 9], USER, r"adapter\.rank=9: expected at most model\.width=8"),
    "more clients than people": (["--clients", 97], USER, "96 people beside a panel of 24 are fewer than 97 clients"),
    "unknown partition": (["--partition", "by-moon"], USER, r"partition\.scheme='by-moon'"),
    "no such column": (
        ["--partition", "by-column:Moon"],
        USER,
        "column of people or items; there are: Country",
    ),
    "too few values": (["--partition", "by-column:Country", "--clients", 5], USER, "lower --clients to 4 or less"),
    "panel of all": (["--panel-fraction", 1], USER, r"partition\.panel_fraction=1\.0: Input should be less than 1"),
    "negative seed": (["--seed", -1], USER, r"seed=-1: Input should be greater than or equal to 0"),
    "trust without noise": (["--trust", "central", "--no-dp"], USER, r"privacy\.trust=central: .*use trust=local"),
    "noise shared by one": (["--trust", "distributed", "--clients", 1], PRIVACY, "noise_sharers=1: expected .* >= 2"),
    "epsilon out of reach": (
        ["--epsilon", 1e-7, "--delta", 1e-300],
        PRIVACY,
        "no noise reaches it; raise privacy.epsilon",
    ),
    "no such base": (["--base", "nowhere"], USER, "nowhere: not a usable base"),
    "no such encoder": (["--encoder", "./nowhere"], USER, r"encoder './nowhere': no such folder"),
    "unknown field mapped": (["--map", "who=user_id"], USER, "no field 'who'; expected one of user_id"),
}


@pytest.mark.parametrize(("flags", "code", "message"), BAD_FLAGS.values(), ids=BAD_FLAGS)
def test_a_bad_flag_is_one_line_and_leaves_no_folder(flags, code, message, tmp_path):
    bench = Bench.at(tmp_path)
    refused(bench.simulate(*flags), code=code, message=message)
    assert not bench.out.exists()


BAD_SETTINGS = {
    "unknown key": (
        {"privacy.epsilom": 3.0},
        USER,
        r"tiny\.toml: privacy\.epsilom=3\.0: Extra inputs are not permitted",
    ),
    "unknown section": ({"privvacy.epsilon": 3.0}, USER, r"tiny\.toml: privvacy=.*: Extra inputs are not permitted"),
    "wrong type": (
        {"federation.rounds": "many"},
        USER,
        r"tiny\.toml: federation\.rounds='many': Input should be a valid int",
    ),
    "more asked than there": ({"federation.clients_per_round": 5}, USER, "clients_per_round=5: expected 1 to 4"),
    "cut on the wrong side": (
        {"data.split": "next-basket", "data.time_cut": "2031-01-01"},
        USER,
        r"data\.time_cut='2031-01-01': expected inside the data's span",
    ),
    "no history left": ({"data.max_history": 1}, USER, "nobody at a client has a held-out target; .*data.max_history"),
    "odd width": ({"model.width": 7}, USER, r"model\.width=7: expected an even multiple of model\.heads=1"),
}


@pytest.mark.parametrize(("changes", "code", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_a_bad_setting_is_one_line_and_leaves_no_folder(changes, code, message, tmp_path):
    bench = Bench.at(tmp_path, changes)
    refused(bench.simulate(), code=code, message=message)
    assert not bench.out.exists()


def test_a_bad_flag_is_not_blamed_on_the_file_nor_the_other_way_round(tmp_path):
    good, bad = Bench.at(tmp_path / "good"), Bench.at(tmp_path / "bad", {"privacy.delta": 2.0})
    refused(good.simulate("--delta", 2), code=USER, message=r"error: flags: privacy\.delta=2\.0")
    refused(bad.simulate("--epsilon", 3), code=USER, message=r"bad/tiny\.toml: privacy\.delta=2\.0")


@pytest.mark.parametrize("content", [b"rounds =", b"\xff", None], ids=["not TOML", "not UTF-8", "absent"])
def test_a_settings_file_that_cannot_be_read_is_one_line(content, tmp_path):
    bench = Bench.at(tmp_path)
    bench.config.unlink() if content is None else bench.config.write_bytes(content)
    refused(bench.simulate(), code=USER, message=r"tiny\.toml: cannot be read( as TOML)?: .")


@pytest.mark.parametrize("flag", ["--data", "--catalogue"])
def test_events_and_catalogue_come_together(flag, tmp_path):
    bench = Bench.at(tmp_path)
    inputs = dict(zip(bench.inputs[::2], bench.inputs[1::2], strict=True))
    other = {"--data": "--catalogue", "--catalogue": "--data"}[flag]
    outcome = bench.run("--config", bench.config, flag, inputs[flag])
    refused(outcome, code=USER, message=rf"\({other}\) is missing: events and catalogue are given together")


def test_an_existing_run_is_not_touched_without_resume(bare_run):
    bench, _ = bare_run
    before = {path: path.read_bytes() for path in bench.out.rglob("*") if path.is_file()}
    refused(bench.simulate("--no-dp"), code=USER, message="run: exists; pass --resume or another --out")
    assert {path: path.read_bytes() for path in bench.out.rglob("*") if path.is_file()} == before


def test_a_folder_with_other_peoples_files_is_not_touched(tmp_path):
    bench = Bench.at(tmp_path)
    bench.out.mkdir()
    (bench.out / "thesis.txt").write_text("years of work")
    refused(bench.simulate("--rank", 0), code=USER, message=r"adapter\.rank")
    refused(bench.simulate("--rank", 9), code=USER, message="exists; pass --resume or another --out")
    assert text_of(bench.out / "thesis.txt") == "years of work"


@pytest.mark.parametrize("inside", [True, False])
def test_a_file_where_the_folder_should_be_is_one_line(inside, tmp_path):
    bench = Bench.at(tmp_path)
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run" if inside else tmp_path / "file"
    refused(bench.simulate(out=out), code=USER, message="file.*: cannot be a run folder: .*; choose another --out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_one_line(tmp_path):
    bench = Bench.at(tmp_path)
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(
        bench.simulate(out=tmp_path / "locked" / "run"), code=USER, message="cannot be a run folder: Permission denied"
    )


def test_after_a_refusal_the_same_folder_can_be_used(tmp_path):
    bench = Bench.at(tmp_path)
    refused(bench.simulate("--rank", 9), code=USER, message=r"adapter\.rank=9")
    refused(bench.simulate("--trust", "distributed", "--clients", 1), code=PRIVACY, message="noise_sharers=1")
    assert bench.simulate("--rank", 2, "--no-dp").exit_code == 0
