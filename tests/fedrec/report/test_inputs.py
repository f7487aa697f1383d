"""A report is refused rather than written from figures that do not fit their schema."""

import pytest

from fedrec.errors import RunError
from fedrec.report.inputs import check_inputs
from tests.fedrec.report.conftest import with_news


def test_a_good_run_passes_and_keeps_its_figures(run):
    summary, rounds, context = check_inputs(*run)
    assert summary.metrics["federated"]["ndcg@10"] == 0.1487
    assert rounds[-1].panel_ndcg == run[1][-1]["panel_ndcg@10"]
    assert context.published_round == 27


def test_a_run_without_privacy_passes(open_run):
    assert check_inputs(*open_run)[0].privacy is None


def test_rounds_may_carry_keys_that_a_report_does_not_show(run):
    run[1][0]["note"] = "x"
    assert len(check_inputs(*run)[1]) == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, r, c: s.pop("seed"), r"summary: seed: Field required"),
        (lambda s, r, c: s.update(extra=1), r"summary: extra: Extra inputs are not permitted"),
        (lambda s, r, c: s["metrics"].pop("base"), r"summary: metrics: .*rows missing: \['base'\]"),
        (
            lambda s, r, c: s["metrics"].update(magic=s["metrics"]["base"]),
            r"summary: metrics: .*unknown rows: \['magic'\]",
        ),
        (
            lambda s, r, c: s["metrics"]["base"].pop("hr@10"),
            r"summary: metrics: .*row base: expected exactly the columns .*, got \['coverage@10'",
        ),
        (
            lambda s, r, c: s["metrics"]["base"].update({"hr@10": float("nan")}),
            r"summary: metrics\.base\.hr@10: .*finite",
        ),
        (
            lambda s, r, c: s["metrics"]["base"].update({"cold_hr@10": 0.1}),
            r"summary: metrics: .*row popularity: expected exactly the columns .*'cold_hr@10'\], got",
        ),
        (lambda s, r, c: s["fairness"].update(by_size=[]), r"summary: fairness\.by_size: .*at least 1 item"),
        (
            lambda s, r, c: with_news(s)["held_out"]["metrics"].pop("shared"),
            r"summary: held_out\.metrics: .*expected exactly the rows \['base', 'local_only', 'shared', 'federated'\]",
        ),
        (lambda s, r, c: s["privacy"].pop("delta"), r"summary: privacy\.delta: Field required"),
        (lambda s, r, c: s["privacy"].update(epsilon=float("inf")), r"summary: privacy\.epsilon: .*finite"),
        (lambda s, r, c: r[4].pop("void"), r"round 5: void: Field required"),
        (lambda s, r, c: r[0].update(admitted=-1), r"round 1: admitted: .*greater than or equal to 0"),
        (lambda s, r, c: c.pop("statement"), r"report context: statement: Field required"),
        (lambda s, r, c: c.update(limits=[]), r"report context: limits: .*at least 1 item"),
    ],
)
def test_a_misfit_is_named(run, change, message):
    change(*run)
    with pytest.raises(RunError, match=message):
        check_inputs(*run)
