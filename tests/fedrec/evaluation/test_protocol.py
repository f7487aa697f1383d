import numpy as np
import pytest

from fedrec.data.histories import Histories
from fedrec.data.splits import Split
from fedrec.errors import DataError, RunError
from fedrec.evaluation.masking import Masking
from fedrec.evaluation.metrics import METRICS
from fedrec.evaluation.protocol import Evaluation, evaluate, paired_difference

ITEMS = 30


def make_split(train, targets) -> Split:
    return Split(Histories.from_lists(train), Histories.from_lists(targets))


def random_split(rng, *, people=23, most_targets=1) -> tuple[Split, np.ndarray]:
    """Histories, targets and tie-free scores of random people."""
    train = [rng.integers(0, ITEMS, rng.integers(1, 6)).tolist() for _ in range(people)]
    targets = [rng.choice(ITEMS, rng.integers(1, most_targets + 1), replace=False).tolist() for _ in range(people)]
    scores = rng.permuted(np.tile(np.arange(ITEMS, dtype=np.float32), (people, 1)), axis=1)
    return make_split(train, targets), scores


def scored(scores, split, **options) -> Evaluation:
    options = {"people": np.arange(len(split.train)), "items": scores.shape[1], "masking": Masking.NONE} | options
    return evaluate(lambda people: scores[people], split, **options)


def test_two_people_by_hand():
    split = make_split([[0], [1]], [[2], [0]])
    scores = np.array([[0.0, 1.0, 2.0], [1.0, 2.0, 0.0]], dtype=np.float32)
    result = scored(scores, split)
    assert result.per_person["mrr@10"].tolist() == [1.0, 0.5]
    assert result.means()["ndcg@10"] == pytest.approx((1 + 1 / np.log2(3)) / 2)
    assert result.means()["coverage@10"] == 1.0


def test_masking_takes_only_the_last_item_out():
    split = make_split([[1, 0], [2, 1]], [[2], [2]])
    scores = np.array([[5.0, 4.0, 3.0]] * 2, dtype=np.float32)
    assert scored(scores, split).per_person["mrr@10"].tolist() == [1 / 3, 1 / 3]
    # First person: item 0 gone, item 1 (earlier history) stays ahead. Second: item 1 gone.
    assert scored(scores, split, masking=Masking.LAST).per_person["mrr@10"].tolist() == [1 / 2, 1 / 2]


def test_masking_history_takes_everything_seen_out():
    split = make_split([[1, 0], [2, 1]], [[2], [0]])
    scores = np.array([[5.0, 4.0, 3.0, 2.0], [1.0, 4.0, 3.0, 2.0]], dtype=np.float32)
    assert scored(scores, split, masking=Masking.HISTORY).per_person["mrr@10"].tolist() == [1.0, 1 / 2]


def test_masking_does_not_write_into_what_the_scorer_returned():
    split = make_split([[0]], [[1]])
    scores = np.ones((1, 3), dtype=np.float32)
    evaluate(lambda _: scores, split, people=np.array([0]), items=3, masking=Masking.LAST)
    assert (scores == 1).all()


def test_a_person_without_a_history_or_without_targets_is_no_trouble():
    split = make_split([[], [1], [2]], [[0], [], [1]])
    result = scored(np.ones((3, 4), dtype=np.float32), split, masking=Masking.LAST)
    assert result.people.tolist() == [0, 2]


def test_blocks_do_not_matter_and_progress_reaches_the_end():
    split, scores = random_split(np.random.default_rng(1), most_targets=4)
    seen = []
    whole, pieces = scored(scores, split), scored(scores, split, batch=5, progress=lambda *done: seen.append(done))
    assert whole.means() == pieces.means()
    assert seen == [(5, 23), (10, 23), (15, 23), (20, 23), (23, 23)]


def test_the_scorer_is_asked_for_no_more_than_a_block():
    split, scores = random_split(np.random.default_rng(2))
    asked = []

    def scorer(people):
        asked.append(len(people))
        return scores[people]

    evaluate(scorer, split, people=np.arange(23), items=ITEMS, masking=Masking.NONE, batch=10)
    assert asked == [10, 10, 3]


def test_the_order_of_people_does_not_matter():
    rng = np.random.default_rng(3)
    split, scores = random_split(rng)
    order = rng.permutation(23)
    straight, shuffled = scored(scores, split), scored(scores, split, people=order)
    assert straight.means() == pytest.approx(shuffled.means())
    assert (straight.per_person["ndcg@20"][order] == shuffled.per_person["ndcg@20"]).all()


@pytest.mark.parametrize("most_targets", [1, 5])
def test_every_metric_of_every_person_agrees_with_ranx(monkeypatch, most_targets):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling ranx takes 40 s, running it as Python takes one
    from ranx import Qrels, Run
    from ranx import evaluate as ranx_evaluate

    split, scores = random_split(np.random.default_rng(4), most_targets=most_targets)
    result = scored(scores, split)
    people = [f"p{person:02d}" for person in range(23)]  # ranx sorts by name
    qrels = Qrels({name: {f"i{i}": 1 for i in split.targets.of(p)} for p, name in enumerate(people)})
    run = Run({name: {f"i{i}": float(scores[p, i]) for i in range(ITEMS)} for p, name in enumerate(people)})
    theirs = {"hr": "hit_rate", "ndcg": "ndcg", "mrr": "mrr", "recall": "recall"}
    for metric in METRICS:
        name, cutoff = metric.split("@")
        # No basket is longer than the list, so the two definitions of recall agree.
        expected = ranx_evaluate(qrels, run, f"{theirs[name]}@{cutoff}", return_mean=False)
        np.testing.assert_allclose(result.per_person[metric], expected, atol=1e-9, err_msg=metric)
        assert 0 < expected.sum() < 23, "a test in which everybody or nobody is hit shows nothing"


def test_coverage_counts_items_that_somebody_would_see():
    split = make_split([[0]] * 3, [[1]] * 3)
    scores = np.tile(np.arange(40, dtype=np.float32), (3, 1))
    means = scored(scores, split).means()
    assert means["coverage@10"] == 10 / 40
    assert means["coverage@20"] == 20 / 40


def test_worst_decile_is_the_mean_of_the_worst_tenth_of_clients():
    people = np.arange(20)
    values = np.arange(20) / 20
    clients = tuple(np.array([person]) for person in people)
    result = Evaluation(people, {"ndcg@10": values}, {}, clients)
    assert result.worst_decile("ndcg@10") == pytest.approx((0 + 1 / 20) / 2)
    assert result.means()["worst_decile_ndcg@10"] == pytest.approx(0.025)


def test_mean_over_clients_counts_a_small_client_as_much_as_a_large_one():
    clients = (np.array([0, 1, 2]), np.array([3]), np.array([4]))
    result = Evaluation(np.arange(4), {"ndcg@10": np.array([0.0, 0.3, 0.6, 1.0])}, {}, clients)  # 4 has no target
    assert result.means()["merchant_ndcg@10"] == pytest.approx((0.3 + 1.0) / 2)
    assert result.means()["ndcg@10"] == pytest.approx(1.9 / 4)


def test_client_means_weigh_people_inside_a_client_and_pass_over_empty_clients():
    result = Evaluation(np.array([3, 5, 9]), {"hr@10": np.array([1.0, 0.0, 1.0])}, {})
    clients = [np.array([5, 3]), np.array([9, 4]), np.array([7])]
    assert result.client_means("hr@10", clients)[:2].tolist() == [0.5, 1.0]
    assert np.isnan(result.client_means("hr@10", clients)[2])
    assert result.worst_decile("hr@10", clients) == 0.5


def test_means_name_no_worst_decile_without_clients():
    split, scores = random_split(np.random.default_rng(5))
    assert "worst_decile_ndcg@10" not in scored(scores, split).means()
    assert "worst_decile_ndcg@10" in scored(scores, split, clients=[np.arange(4), np.arange(4, 23)]).means()


def test_worst_decile_of_clients_without_targets_is_refused():
    result = Evaluation(np.array([3]), {"hr@10": np.array([1.0])}, {})
    with pytest.raises(DataError, match=r"worst decile of hr@10: no client has a person with a target"):
        result.worst_decile("hr@10", [np.array([1])])


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(broken):
    split, scores = random_split(np.random.default_rng(6))
    scores[4, 3] = broken
    with pytest.raises(
        RunError, match=r"scores of 1 of 23 people are not finite: training diverged; lower the step size"
    ):
        scored(scores, split)


def test_scores_of_another_shape_are_a_bug():
    split, scores = random_split(np.random.default_rng(7))
    with pytest.raises(ValueError, match=r"scorer gave shape \(23, 30\): expected \(23, 31\)"):
        scored(scores, split, items=31)


def test_nobody_with_a_target_is_refused():
    split = make_split([[0]], [[]])
    with pytest.raises(DataError, match=r"none of the people to evaluate has a held-out target; 1 people were split"):
        scored(np.ones((1, 3)), split)


def test_paired_difference_by_hand():
    mean, error = paired_difference(np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.5, 1.0]))
    assert mean == pytest.approx(0.5)
    assert error == pytest.approx(0.5 / np.sqrt(3))


def test_paired_difference_of_one_person_has_no_error():
    mean, error = paired_difference(np.array([0.2]), np.array([0.5]))
    assert mean == pytest.approx(0.3)
    assert np.isnan(error)


def test_paired_difference_of_other_people_is_a_bug():
    with pytest.raises(ValueError, match=r"paired_difference: \(2,\) against \(3,\); evaluate both on the same people"):
        paired_difference(np.zeros(2), np.zeros(3))


def test_cold_targets_are_those_in_nobodys_training_and_are_judged_apart():
    """Items 20 and 21 are new: the first person's is ranked first, the second's eleventh."""
    split = make_split([list(range(20)), [1], [2]], [[20], [21, 1], [0]])
    scores = np.tile(-np.arange(ITEMS, dtype=np.float32), (3, 1))
    scores[0, 20] = 1.0
    scores[1, 21] = -9.5  # ten items stand before it
    result = scored(scores, split)
    np.testing.assert_array_equal(result.cold, [1.0, 0.0, np.nan])
    assert result.cold_people == 2
    assert result.means()["cold_hr@10"] == 0.5
    assert result.per_person["hr@10"].tolist() == [1.0, 1.0, 1.0]  # the second person's other target is not new


def test_nobody_asked_for_a_cold_item_means_no_such_column():
    result = scored(np.zeros((1, 3), np.float32), make_split([[0, 1, 2]], [[1]]))
    assert result.cold_people == 0
    assert "cold_hr@10" not in result.means()
