"""``fedrec privacy plan``: the same numbers on the terminal, as JSON and in the picture; mistakes are one line."""

import json
import re

import pytest
import typer
from typer.testing import CliRunner

from fedrec.cli.privacy_plan import FLAGS, PLAN_EXAMPLES, plan_command
from fedrec.config import Config
from fedrec.model.base import PANEL, save_base
from fedrec.privacy.accounting import calibrated_noise_multiplier
from fedrec.privacy.plan import PrivacyPlan
from tests.tiny_pairs import some_pairs
from tests.tiny_ranker import histories, learned

SMALL = ["--people", "500", "--rounds", "4", "--epsilon", "3", "--delta", "1e-6"]
KEYS = {
    "epsilon", "delta", "noise_multiplier", "sampling_rate", "steps", "clip_norm", "unit", "relation", "accountant",
    "rounds", "local_steps", "expected_people", "statement", "epsilon_by_round", "epsilon_for_person_at",
    "epsilon_replace_one", "epsilon_zero_out", "rdp_epsilon", "more_rounds", "sampling_rates",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    """The coarser grid is an upper bound too and ten times faster."""
    calibrated_noise_multiplier.cache_clear()
    monkeypatch.setattr("fedrec.privacy.accounting._FINE", 1e-3)
    yield
    calibrated_noise_multiplier.cache_clear()


def plan(*args: str):
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command("plan", epilog=PLAN_EXAMPLES)(plan_command)
    return CliRunner().invoke(app, list(args), env={"COLUMNS": "100"})


def flat(text: str) -> str:
    return " ".join(text.split())


def test_json_is_one_document_with_stable_names_and_the_plan_s_own_numbers():
    outcome = plan(*SMALL, "--local-steps", "2", "--sampling-rate", "0.1", "--json")
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.stdout)
    assert set(found) >= KEYS
    made = PrivacyPlan.calibrate(
        3.0, 1e-6, sampling_rate=0.1, rounds=4, local_steps=2, clip_norm=1.0, clipping="auto-s", expected_people=500
    )
    assert found.items() >= made.to_dict().items()
    assert [point["round"] for point in found["epsilon_by_round"]] == [1, 2, 3, 4]
    assert found["sampling_rates"] is None


def test_defaults_are_those_of_the_configuration():
    outcome = plan("--people", "80", "--json")
    found, settings = json.loads(outcome.stdout), Config()
    assert (found["epsilon"], found["delta"]) == (settings.privacy.epsilon, settings.privacy.delta)
    assert (found["rounds"], found["local_steps"]) == (settings.federation.rounds, settings.federation.local_steps)
    assert (found["sampling_rate"], found["clip_norm"]) == (settings.privacy.sampling_rate, settings.privacy.clip_norm)
    assert found["clipping"] == settings.privacy.clipping


def test_metric_releases_take_their_noise_from_the_configuration():
    found = json.loads(plan(*SMALL, "--metric-releases", "1", "--json").stdout)
    assert found["metric_noise_multiplier"] == Config().privacy.metric_noise_multiplier


def test_help_states_the_configuration_s_defaults_and_an_example():
    shown, settings = flat(plan("--help").stdout), Config()
    privacy, federation = settings.privacy, settings.federation
    numbers = [
        f"{privacy.epsilon:g}",
        f"{privacy.clip_norm:g}",
        f"{privacy.metric_noise_multiplier:g}",
        privacy.sampling_rate,
        "1e-5",
    ]
    for default in [*numbers, federation.rounds, federation.local_steps, privacy.clipping]:
        assert f"[{default}]" in shown
    assert "fedrec privacy plan --epsilon 3 --delta 1e-6 --people 5000 --rounds 40" in shown
    assert all(flag in shown for flag in FLAGS.values())


def test_the_terminal_shows_the_json_s_numbers_and_the_whole_statement():
    found = json.loads(plan(*SMALL, "--json").stdout)
    shown = flat(plan(*SMALL).stdout)
    assert flat(found["statement"]) in shown
    numbers = [found["noise_multiplier"], found["epsilon_replace_one"], found["epsilon_zero_out"], found["rdp_epsilon"]]
    numbers += [point["epsilon"] for point in found["epsilon_by_round"]] + list(found["epsilon_for_person_at"].values())
    for line in found["more_rounds"]:
        numbers += [line["noise_multiplier"], line["epsilon_at_same_noise"]]
    for number in numbers:
        assert f"{number:.4f}" in shown
    assert "below 1/n = 0.002" in shown


def test_no_epsilon_stands_alone_on_the_terminal():
    shown = flat(plan(*SMALL).stdout)
    assert shown.endswith(
        "* Every epsilon above: delta = 1e-06, per person at a client, neighbours add or remove one person, "
        f"{PrivacyPlan.accountant}, unless the line says otherwise."
    )
    headings = re.findall(r"Epsilon\S*|epsilon\*", shown)
    assert headings
    assert all(heading.endswith("*") for heading in headings)


def test_a_delta_that_is_too_large_is_said():
    assert "NOT below 1/n = 0.002" in flat(plan("--people", "500", "--rounds", "4", "--delta", "0.01").stdout)


def test_sampling_rates_are_compared_and_the_best_is_marked(monkeypatch):
    monkeypatch.setattr("fedrec.privacy.forecast.SAMPLING_RATES", (0.1, 0.25, 1.0))
    found = json.loads(plan(*SMALL, "--compare-sampling-rates", "--json").stdout)["sampling_rates"]
    best = next(line for line in found if line["is_best"])
    shown = plan(*SMALL, "--compare-sampling-rates").stdout
    marked = [line for line in shown.splitlines() if line.rstrip().endswith(" best") and line.split()[0][0].isdigit()]
    assert len(marked) == 1
    assert marked[0].split()[0] == f"{best['sampling_rate']:g}"
    assert f"{best['relative_noise']:.3g}" in marked[0]


def test_a_cap_and_metric_releases_cost_noise_and_are_shown():
    plain = json.loads(plan(*SMALL, "--json").stdout)["noise_multiplier"]
    extra = ["--batch-cap", "140", "--max-people", "520", "--metric-releases", "2", "--metric-noise-multiplier", "20"]
    found = json.loads(plan(*SMALL, *extra, "--json").stdout)
    assert found["noise_multiplier"] > plain
    assert (found["batch_cap"], found["max_people"]) == (140, 520)
    shown = flat(plan(*SMALL, *extra).stdout)
    assert "140 people, at clients of at most 520" in shown
    assert "2, each with noise multiplier 20" in shown
    assert "and 2 releases of noised metrics" in shown


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_plot_is_drawn_where_asked(tmp_path, ending):
    path = tmp_path / f"plan.{ending}"
    outcome = plan(*SMALL, "--plot", str(path))
    assert outcome.exit_code == 0, outcome.output
    assert f"Drawn: {path}" in outcome.stdout
    assert path.read_bytes().startswith(b"\x89PNG" if ending == "png" else b"<?xml")
    assert json.loads(plan(*SMALL, "--plot", str(path), "--json").stdout)["rounds"] == 4


USER, PRIVACY = 2, 3


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--epsilon", "0"], USER, r"--epsilon=0\.0: Input should be greater than 0"),
        (["--epsilon", "-1"], USER, r"--epsilon=-1\.0: Input should be greater than 0"),
        (["--epsilon", "nan"], USER, r"--epsilon=nan: "),
        (["--epsilon", "inf"], USER, r"--epsilon=inf: "),
        (["--delta", "0"], USER, r"--delta=0\.0: Input should be greater than 0"),
        (["--delta", "1"], USER, r"--delta=1\.0: Input should be less than 1"),
        (["--delta", "nan"], USER, r"--delta=nan: "),
        (["--people", "0"], USER, r"--people=0: Input should be greater than or equal to 1"),
        (["--rounds", "0"], USER, r"--rounds=0: Input should be greater than or equal to 1"),
        (["--local-steps", "-2"], USER, r"--local-steps=-2: Input should be greater than or equal to 1"),
        (["--sampling-rate", "1.5"], USER, r"--sampling-rate=1\.5: Input should be less than or equal to 1"),
        (["--clip-norm", "0"], USER, r"--clip-norm=0\.0: Input should be greater than 0"),
        (["--batch-cap", "10"], USER, r"--batch-cap and --max-people: expected both or neither"),
        (["--max-people", "10"], USER, r"--batch-cap and --max-people: expected both or neither"),
        (["--batch-cap", "0", "--max-people", "9"], USER, r"--batch-cap=0: expected a whole number >= 1"),
        (["--batch-cap", "3", "--max-people", "0"], USER, r"--max-people=0: expected a whole number >= 1"),
        (["--metric-releases", "-1"], USER, r"--metric-releases=-1: expected a whole number >= 0"),
        (["--metric-noise-multiplier", "2"], USER, "--metric-noise-multiplier: expected --metric-releases with it"),
        (
            ["--metric-releases", "2", "--metric-noise-multiplier", "0"],
            USER,
            r"--metric-noise-multiplier=0\.0: Input should",
        ),
        (["--plot", "plan.pdf"], USER, r"--plot=plan\.pdf: expected a file ending in \.svg or \.png"),
        (["--plot", "nowhere/plan.svg"], USER, r"--plot=nowhere/plan\.svg: no folder nowhere; make it first"),
        (["--epsilon", "1e-9", "--delta", "1e-14"], PRIVACY, r"epsilon=1e-09 at delta=1e-14: no noise reaches it"),
        (["--metric-releases", "9", "--metric-noise-multiplier", "1"], PRIVACY, r"the other releases spend it all"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_flag(args, code, message):
    outcome = plan(*SMALL, *args)
    assert outcome.exit_code == code, outcome.output
    assert outcome.stdout == ""
    lines = outcome.stderr.splitlines()
    assert len(lines) == 1
    assert re.match(f"error: {message}" if code == USER else f"error: .*{message}", lines[0]), lines[0]


def test_people_are_asked_for():
    outcome = plan("--epsilon", "3")
    assert outcome.exit_code == USER
    assert "--people" in outcome.stderr


def test_a_plot_that_cannot_be_written_is_one_line(tmp_path):
    folder = tmp_path / "plan.svg"
    folder.mkdir()
    outcome = plan(*SMALL, "--plot", str(folder))
    assert outcome.exit_code == USER
    assert re.fullmatch(r"error: --plot=.*plan\.svg: cannot be written: Is a directory\n", outcome.stderr)


DISTRIBUTED = ["--people", "75", "--clients", "50", "--trust", "distributed"]


def test_the_split_is_shown_before_anyone_spends_and_the_plan_pays_for_both():
    found = json.loads(plan(*DISTRIBUTED, "--json").stdout)
    split, (pairs, adapter) = found["split"], found["split"]["parts"]
    assert split["noise_multiplier"] == found["statistics_noise_multiplier"] == pairs["noise_multiplier"]
    assert split["share"] == pairs["share"] > 0.8
    assert adapter["noise_multiplier"] == found["noise_multiplier"]
    assert (found["trust"], found["noise_sharers"]) == ("distributed", 50)
    assert found["epsilon_by_round"][-1]["epsilon"] <= 8.0
    shown = flat(plan(*DISTRIBUTED).stdout)
    assert "What each part can expect, by public figures" in shown
    assert f"pairs get {pairs['verdict']}" in shown
    assert f"the adapter gets {adapter['verdict']}" in shown
    assert f"one, with noise multiplier {split['noise_multiplier']:.4f}" in shown


def test_under_local_noise_pairs_get_nothing_and_the_plan_is_as_without_them():
    found = json.loads(plan("--people", "75", "--clients", "50", "--json").stdout)
    assert found["split"]["parts"][0]["verdict"].startswith("nothing: can't pay")
    bare = json.loads(plan("--people", "75", "--json").stdout)
    assert bare["split"] is None
    assert {**bare, "split": None} == {**found, "split": None}


def test_a_base_brings_its_own_figures(tmp_path):
    save_base(learned(), tmp_path, some_pairs())
    histories(12, 9, 20, 6, 15, 8, seed=12).save(tmp_path / PANEL)
    found = json.loads(plan(*DISTRIBUTED, "--base", str(tmp_path), "--json").stdout)
    other = json.loads(plan(*DISTRIBUTED, "--json").stdout)
    assert found["split"]["parts"][0]["signal"] != other["split"]["parts"][0]["signal"]
    outcome = plan(*DISTRIBUTED, "--base", str(tmp_path / "nowhere"))
    assert outcome.exit_code == 2
    assert "not a usable base" in outcome.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--trust", "distributed"], "--trust: expected --clients with it, how many are summed"),
        (["--base", "somewhere"], "--base: expected --clients with it, how many are summed"),
        (["--clients", "0"], "--clients=0: "),
    ],
)
def test_a_split_needs_to_know_who_is_summed(flags, message):
    outcome = plan("--people", "75", *flags)
    assert outcome.exit_code == 2
    assert message in outcome.stderr


def test_noise_that_nobody_shares_is_refused_on_privacy_grounds():
    outcome = plan("--people", "75", "--clients", "1", "--trust", "distributed")
    assert outcome.exit_code == 3
    assert "noise_sharers=1: expected a whole number >= 2" in outcome.stderr
