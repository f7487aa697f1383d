import numpy as np
import pytest

from fedrec.agreement import agreed_ranker, read_agreement
from fedrec.data.histories import Histories
from fedrec.errors import DataError, RunError
from fedrec.evaluation.masking import Masking
from fedrec.evaluation.panel import panel_measures, panel_people
from fedrec.model.adapters import adapter_arrays
from fedrec.model.base import PANEL
from fedrec.model.pairs import PublicPairs, no_pairs
from server.panel import load_judge
from tests.tiny_pairs import some_pairs
from tests.tiny_ranker import ITEMS, histories, nudge, run_folder

JUDGES = histories(3, 9, 1, 20, 7, 2, 13)


@pytest.fixture
def run(tmp_path):
    run_folder(tmp_path / "run", histories(4, 5), [np.array([0]), np.array([1])])
    return tmp_path / "run"


def test_judge_measures_the_adapter_it_is_given(run):
    JUDGES.save(run / "base" / PANEL)
    agreed = read_agreement(run)
    judge, ranker = load_judge(run, agreed, masking=Masking.LAST), agreed_ranker(agreed, run)
    for size in (0.0, 0.1, 0.3):
        nudge(ranker, size=size)
        expected = panel_measures(ranker, JUDGES, masking=Masking.LAST)
        measured = judge(adapter_arrays(ranker))
        assert expected.items() <= measured.items()
        assert judge(adapter_arrays(ranker)) == measured  # and keeps nothing of the last one
    assert expected["panel_loss"] != judge(adapter_arrays(agreed_ranker(agreed, run)))["panel_loss"]


def test_gain_is_that_over_the_base_in_standard_errors_of_the_pairs(run):
    JUDGES.save(run / "base" / PANEL)
    agreed = read_agreement(run)
    judge, ranker = load_judge(run, agreed, masking=Masking.LAST), agreed_ranker(agreed, run)
    assert judge(adapter_arrays(ranker))["panel_gain"] == 0
    _, before = panel_people(ranker, JUDGES, masking=Masking.LAST)
    nudge(ranker, size=0.3)
    _, after = panel_people(ranker, JUDGES, masking=Masking.LAST)
    expected = (after - before).mean() / ((after - before).std(ddof=1) / np.sqrt(6))  # one of the seven has one event
    assert judge(adapter_arrays(ranker))["panel_gain"] == pytest.approx(expected, rel=1e-9)
    assert abs(expected) > 0.01
    resumed = load_judge(run, agreed, masking=Masking.LAST)  # is not shown the base first
    assert resumed(adapter_arrays(ranker))["panel_gain"] == pytest.approx(expected, rel=1e-9)


def test_gain_of_one_person_alone_is_never_sure(run):
    histories(9).save(run / "base" / PANEL)
    agreed = read_agreement(run)
    ranker = agreed_ranker(agreed, run)
    nudge(ranker, size=0.3)
    assert load_judge(run, agreed, masking=Masking.LAST)(adapter_arrays(ranker))["panel_gain"] == 0


def test_run_without_a_panel_that_has_anything_to_predict_has_no_judge(run):
    assert load_judge(run, read_agreement(run), masking=Masking.LAST) is None
    histories(1, 1).save(run / "base" / PANEL)
    assert load_judge(run, read_agreement(run), masking=Masking.LAST) is None


def test_panel_that_takes_something_twice_is_refused_where_histories_are_masked(run):
    Histories.from_lists([[1, 2, 1]]).save(run / "base" / PANEL)
    agreed = read_agreement(run)
    assert load_judge(run, agreed, masking=Masking.LAST) is not None
    with pytest.raises(DataError, match=r"data\.mask_history: 1 of 3 events take an item that the person took before"):
        load_judge(run, agreed, masking=Masking.HISTORY)


def test_damaged_panel_or_base_is_refused(run):
    agreed = read_agreement(run)
    (run / "base" / PANEL).write_bytes(b"not a panel")
    with pytest.raises(DataError, match=r"panel.safetensors: cannot be read as histories"):
        load_judge(run, agreed, masking=Masking.LAST)
    (run / "base" / "ranker.json").write_text("{}")
    with pytest.raises(RunError, match="not a usable base"):
        load_judge(run, agreed, masking=Masking.LAST)


def test_judge_scores_as_merchants_do_with_public_pairs(run):
    JUDGES.save(run / "base" / PANEL)
    agreed = read_agreement(run)
    ranker = agreed_ranker(agreed, run)
    pairs, measured = some_pairs(), {}
    for name, listed in (("some", pairs), ("none", no_pairs(ITEMS))):
        listed.save(run / "base")
        measured[name] = load_judge(run, agreed, masking=Masking.LAST)(adapter_arrays(ranker))
    assert PublicPairs.load(run / "base").spec.weight == 0
    some = panel_measures(ranker, JUDGES, masking=Masking.LAST, parts=[pairs.part()])
    assert some.items() <= measured["some"].items()
    assert panel_measures(ranker, JUDGES, masking=Masking.LAST).items() <= measured["none"].items()
    assert measured["some"] != measured["none"]
