"""A whole simulated run under each trust model: it says whom it relies on wherever one looks."""

import json

import pytest

from tests.tiny_run import Bench

WARNINGS = {
    "distributed": "no secure sum stood behind this run",
    "central": "a server that sees each client's exact sum",
}


@pytest.mark.parametrize("trust", WARNINGS)
def test_a_run_of_another_trust_warns_in_terminal_page_and_summary(trust, tmp_path):
    bench = Bench.at(tmp_path)
    outcome = bench.simulate("--trust", trust)
    assert outcome.exit_code == 0, outcome.stderr
    said, page = " ".join(outcome.stdout.split()), (bench.out / "report.html").read_text(encoding="utf-8")
    for text in (said, page.replace("&#39;", "'")):
        assert f"SIMULATION ONLY: trust={trust} " in text
        assert WARNINGS[trust] in text
        assert f"Trust: {trust}." in text
    assert "The guarantee covers the sums that are published, not the update of a single client" in page
    privacy = bench.summary()["privacy"]
    assert privacy["trust"] == trust
    agreed = json.loads((bench.out / "agreement.json").read_text(encoding="utf-8"))["plan"]
    assert (agreed["trust"], agreed["noise_sharers"]) == (trust, 4 if trust == "distributed" else 1)
    assert privacy["noise_multiplier"] == agreed["noise_multiplier"]
    assert bench.resume().exit_code == 0


def test_a_run_of_local_trust_has_nothing_to_warn_of(tmp_path):
    bench = Bench.at(tmp_path)
    said = " ".join(bench.simulate("--trust", "local").stdout.split())
    assert "SIMULATION ONLY" not in said
    assert "Trust: local. Each client adds all of the noise itself, so nobody else needs to be trusted for it." in said
    assert bench.summary()["privacy"]["trust"] == "local"
