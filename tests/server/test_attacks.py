"""What a liar among the enrolled may try changes nothing: one attack at a time, and all at once."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, MessageType

from fedrec.schema import unflatten
from fedrec.signed import sign_reply
from fedrec.wire_metrics import Measures, measures_to_record
from server.admission import Admitted, NormBounds, Quarantined
from server.averaging import Averaging
from server.measures import Measuring, admit_measures
from server.roster import Registered
from server.rounds import Conduct, run_rounds
from server.strategy import ServerState, initial_state
from tests.tiny_federation import HEAD, NODE, SIGNER, federation, instruction, message_to, reply_key
from tests.tiny_liars import ATTACKS, BOUNDS, PARAMETERS, SCHEMA, SILENT, TWICE, Attacked, direction, honest_update


def _run(grid: Attacked, *, rounds: int = 3, averaging: Averaging | None = None) -> ServerState:
    clients = len(grid.get_node_ids())
    return run_rounds(
        grid,
        federation(
            schema=SCHEMA,
            bounds=BOUNDS,
            clients=clients,
            clients_per_round=clients,
            rounds=rounds,
            min_replies=0.1,
            averaging=averaging or Averaging(),
        ),
        state=initial_state(unflatten(np.zeros(PARAMETERS), SCHEMA), SCHEMA, measures={}),
        conduct=Conduct(SIGNER, roster=lambda: grid.roster),
        save=lambda state: None,
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_attack_is_set_aside_under_its_word_and_changes_nothing(attack: str) -> None:
    word, _ = ATTACKS[attack]
    state = _run(Attacked(4, [attack]))
    for record in state.records:
        silent = {"no-reply": 1} if attack.startswith("in a") else {}
        assert record.reasons == {word: 1} | silent
        assert record.admitted == 4
    np.testing.assert_array_equal(state.adapter, _run(Attacked(4, [])).adapter)


def test_reply_counts_once_however_often_it_comes() -> None:
    state = _run(Attacked(4, [TWICE]))
    assert [(record.admitted, record.reasons) for record in state.records] == [(5, {"twice": 1})] * 3
    np.testing.assert_array_equal(state.adapter, _run(Attacked(5, [])).adapter)


def test_forgery_in_a_members_name_does_not_take_its_turn() -> None:
    """It may come first: the member's own reply still counts."""

    class First(Attacked):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
            yield from reversed(list(super().send_and_receive(messages)))

    state = _run(First(4, ["in another member's name"]))
    assert [record.admitted for record in state.records] == [4, 4, 4]
    assert [record.reasons for record in state.records] == [{"not-signed": 1, "no-reply": 1}] * 3


def test_run_that_meets_every_attack_at_once_equals_one_that_meets_none() -> None:
    everything = [*ATTACKS, SILENT]
    state = _run(Attacked(20, everything))
    words = [word for word, _ in ATTACKS.values()]
    silent = 1 + sum(name.startswith("in a") for name in ATTACKS)
    for record in state.records:
        assert record.asked == 20 + len(everything)
        assert record.admitted == 20
        assert record.reasons == {word: words.count(word) for word in words} | {"no-reply": silent}
        assert not record.void
    assert np.isfinite(state.adapter).all()
    np.testing.assert_array_equal(state.adapter, _run(Attacked(20, [])).adapter)


def test_two_of_ten_at_a_hundred_times_the_norm_are_set_aside() -> None:
    state = _run(Attacked(8, ["100 times the norm"] * 2))
    assert [(record.admitted, record.reasons) for record in state.records] == [(8, {"too-long": 2})] * 3
    np.testing.assert_array_equal(state.adapter, _run(Attacked(8, [])).adapter)


def _distance(found: np.ndarray, honest: np.ndarray) -> float:
    """How far ``found`` is from the honest mean, in lengths of that mean."""
    return float(np.linalg.norm(found - honest) / np.linalg.norm(honest))


@pytest.mark.parametrize("kind", ["one direction", "against the mean", "one number"])
def test_two_of_ten_just_below_the_ceiling_move_the_mean_five_lengths_and_the_trimmed_mean_less_than_one(
    kind: str,
) -> None:
    """What norm bounds leave open, and what the option closes; 4.9 and 0.4 to 0.8 in the mean of fifty rounds."""
    plain, trimmed = [], []
    for round_index in range(50):
        replies = [honest_update(partition, round_index) for partition in range(8)]
        honest = np.mean(replies, axis=0)
        along = {
            "one direction": direction(7),
            "against the mean": -honest / np.linalg.norm(honest),
            "one number": np.eye(1, PARAMETERS)[0],
        }[kind]
        replies += [0.999 * BOUNDS.ceiling * along] * 2
        for averaging, distances in ((Averaging(), plain), (Averaging(trim=0.2), trimmed)):
            total = averaging.start(PARAMETERS)
            for update in replies:
                total.add(update, weight=1.0)
            distances.append(_distance(total.mean(), honest))
    assert 4.5 < np.mean(plain) < 5.5
    assert 0.3 < np.mean(trimmed) < 0.85
    assert max(trimmed) < 1


def _along(adapter: np.ndarray, wanted: np.ndarray) -> float:
    """Cosine of how far the adapter has come and a direction."""
    return float(adapter @ wanted / np.linalg.norm(adapter))


def test_trimmed_run_keeps_its_course_among_liars_that_nothing_sets_aside() -> None:
    """All attacks at once, and two of ten just below the ceiling in every round.

    Without liars the run comes to a cosine of 0.82 with the signal after eight rounds. The plain mean is taken over:
    0.15. The trimmed mean keeps more than half, 0.51: it bounds liars, and it does not undo them.
    """
    honest = _along(_run(Attacked(8, []), rounds=8).adapter, direction(0))
    kept = {}
    for name, averaging in (("mean", Averaging()), ("trimmed", Averaging(trim=0.2))):
        state = _run(Attacked(8, [*ATTACKS, SILENT], admitted_liars=2), rounds=8, averaging=averaging)
        assert [record.admitted for record in state.records] == [10] * 8
        assert np.isfinite(state.adapter).all()
        kept[name] = _along(state.adapter, direction(0))
    assert honest > 0.75
    assert kept["mean"] < 0.25
    assert kept["trimmed"] > 0.45


def test_bounds_are_those_of_the_default_run() -> None:
    assert NormBounds(pytest.approx(1.22, abs=0.01), pytest.approx(17.82, abs=0.01)) == BOUNDS
    lengths = [float(np.linalg.norm(honest_update(partition, 1))) for partition in range(50)]
    assert BOUNDS.floor < min(lengths) < max(lengths) < BOUNDS.ceiling / 9


MEASURING = Measuring(("ndcg@10", "hr@10"), every=1, noise_std=0.15)
VALUES = {"ndcg@10": 0.2, "hr@10": 0.4}


def _judged(*, names: tuple[str, ...] = MEASURING.names, number: int = 0, **changes: Any) -> Admitted | Quarantined:
    """The verdict on measures that a member signed, with something changed before or after."""
    asked = instruction()
    honest = Measures(asked.run_id, asked.round_index, asked.base_digest, asked.agreement_digest, HEAD, VALUES)
    before = {name: value for name, value in changes.items() if name != "signature"}
    answer = sign_reply(replace(honest, **before), sender=NODE, key=reply_key(number))
    if "signature" in changes:
        answer = replace(answer, signature=changes["signature"])
    reply = Message(measures_to_record(answer, names=names), reply_to=message_to(NODE, kind=MessageType.EVALUATE))
    roster = {NODE: Registered(reply_key(0).public)}
    return admit_measures(reply, asked=roster, seen=(), instruction=asked, measuring=MEASURING)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"values": VALUES | {"loss": 0.1}, "names": ("ndcg@10", "hr@10", "loss")}, "malformed"),
        ({"values": {"ndcg@10": 0.1}, "names": ("ndcg@10",)}, "malformed"),
        ({"values": {"ndcg@10": 0.1, "recall@20": 0.1}, "names": ("ndcg@10", "recall@20")}, "malformed"),
        ({"values": VALUES | {"hr@10": 1e6}}, "out-of-range"),
        ({"values": VALUES | {"hr@10": -1e6}}, "out-of-range"),
        ({"round_index": 4}, "other-round"),
        ({"number": 1}, "not-signed"),
        ({"signature": ""}, "not-signed"),
        ({"signature": "0" * 128}, "not-signed"),
    ],
)
def test_measures_outside_what_was_agreed_on_are_set_aside(changes: dict[str, Any], word: str) -> None:
    assert isinstance(_judged(), Admitted)
    assert _judged(**changes) == Quarantined(word)
