"""Counts are asked for once, before the first round; the plain sum of enough admitted replies is kept, or nothing."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.clientapp import ClientApp

from clients.replies import Answer
from fedrec.privacy.plan import PrivacyPlan
from fedrec.schema import ArraySpec
from fedrec.wire import Instruction, Refusal, RefusalCode
from fedrec.wire_statistics import Statistics, statistics_to_record
from server.admission import CROWD, Admitted, NormBounds, Quarantined
from server.census import Census, Counts, admit_counts, census_of, counts_of
from server.checkpoint import load_latest, save_checkpoint
from server.rounds import Conduct, run_rounds
from server.strategy import ServerState, initial_state
from simulations.local_grid import LocalGrid
from tests.fedrec.privacy.noises import is_noise_of
from tests.tiny_federation import (
    BASE,
    HEAD,
    PLAN,
    SCHEMA,
    SIGNER,
    TinyMerchant,
    arrays,
    client_app,
    federation,
    head_of,
    instruction,
    message_to,
)

COUNTS = (ArraySpec("popularity", (3,)), ArraySpec("pairs", (4,)))
CENSUS = Census(COUNTS, NormBounds(0.0, 100.0), expected_people=8, client_noise_std=0.25, server_noise_std=0.0)


class Counting(TinyMerchant):
    """Partition p counts p of everything."""

    statistics_schema = COUNTS

    def count_statistics(self, instruction: Instruction) -> Answer:
        values = {spec.name: np.full(spec.shape, self.partition, np.float32) for spec in COUNTS}
        return Answer(values, head_of(self.partition, 0))


def start() -> ServerState:
    return initial_state(arrays(), SCHEMA, measures={})


def run(
    app: ClientApp, *, save: Any = None, state: ServerState | None = None, conduct: Any = None, **changes: Any
) -> ServerState:
    how = Conduct(SIGNER, **(conduct or {}))
    settings = federation(**({"census": CENSUS, "rounds": 2} | changes))
    return run_rounds(
        LocalGrid(app, clients=5), settings, how, state=state or start(), save=save or (lambda state: None)
    )


def refusing(*partitions: int, code: RefusalCode = RefusalCode.BUDGET) -> type[Counting]:
    class Refusing(Counting):
        def count_statistics(self, instruction: Instruction) -> Answer:
            if self.partition in partitions:
                raise Refusal(code)
            return super().count_statistics(instruction)

    return Refusing


def test_sum_and_deviation_by_hand() -> None:
    """0 + 1 + 2 + 3 + 4 = 10 over 8 expected people each: 80; noise of .25 in five replies: 8 · .25 · sqrt 5."""
    counts = run(client_app(Counting)).counts
    assert counts is not None
    assert counts.totals == pytest.approx(np.full(7, 80.0))
    assert counts.noise_std == pytest.approx(8 * 0.25 * math.sqrt(5))
    assert counts.replies == 5


def test_everybody_is_asked_once_before_the_first_round_whoever_trains() -> None:
    order: list[tuple[str, int, int]] = []

    class Noting(Counting):
        def count_statistics(self, instruction: Instruction) -> Answer:
            order.append(("count", instruction.round_index, self.partition))
            return super().count_statistics(instruction)

        def train_round(self, instruction: Instruction) -> Answer:
            order.append(("train", instruction.round_index, self.partition))
            return super().train_round(instruction)

    run(client_app(Noting), clients_per_round=2)
    assert order[:5] == [("count", 1, partition) for partition in range(5)]
    assert [what for what, _, _ in order[5:]] == ["train"] * 4


def test_without_a_census_nobody_is_asked() -> None:
    assert run(client_app(), census=None).counts is None


def test_counting_changes_no_adapter() -> None:
    plain, counted = run(client_app(), census=None), run(client_app(Counting))
    np.testing.assert_array_equal(plain.adapter, counted.adapter)
    assert [record.reasons for record in plain.records] == [record.reasons for record in counted.records]


def test_ends_of_ledgers_that_came_with_counts_are_kept_until_the_round_brings_newer_ones() -> None:
    class Ends(Counting):
        def train_round(self, instruction: Instruction) -> Answer:
            raise Refusal(RefusalCode.PLAN)

    heads = run(client_app(Ends), rounds=1).ledger_heads
    assert sorted(heads.values()) == [head_of(partition, 0) for partition in range(5)]


@pytest.mark.parametrize(("refused", "is_kept"), [((0,), True), ((0, 1), True), ((0, 1, 2), False)])
def test_too_few_replies_make_no_counts_and_the_run_goes_on_without(
    refused: tuple[int, ...], is_kept: bool, caplog: Any
) -> None:
    """Five clients, half of them needed: three."""
    state = run(client_app(refusing(*refused)))
    assert (state.counts is not None) == is_kept
    assert state.round_index == 2
    assert not state.spent, "that counts are not covered says nothing of a round"
    assert ("statistics=none admitted=2 needed=3" in caplog.text) != is_kept


def test_where_the_noise_is_shared_one_missing_reply_makes_none() -> None:
    shared = {"noise_sharers": 5, "min_replies": 1.0}
    assert run(client_app(Counting), **shared).counts is not None
    assert run(client_app(refusing(3)), **shared).counts is None


@pytest.mark.parametrize("asked", [2, 3, 5])
@pytest.mark.parametrize("share", [0.5, 0.7, 1.0])
def test_no_fewer_are_needed_than_in_a_round_and_so_no_fewer_than_share_the_noise(asked: int, share: float) -> None:
    settings = federation(census=CENSUS, clients_per_round=asked, noise_sharers=1, min_replies=share)
    settings = replace(settings, noise_sharers=settings.quorum)  # more would be refused
    assert settings.clients >= settings.census_quorum >= settings.quorum == settings.noise_sharers


def test_lost_replies_are_asked_for_again() -> None:
    """The first answers of two clients get lost on the way; asked again, everybody repeats theirs."""
    lost = {3, 4, 2}

    class Losing(LocalGrid):
        def answer(self, message: Message) -> Message:
            reply = super().answer(message)
            partition = message.metadata.dst_node_id - min(self.get_node_ids())
            if partition in lost:
                lost.discard(partition)
                return Message(Error(1, "lost"), reply_to=message)
            return reply

    settings = federation(census=CENSUS, rounds=1)
    state = run_rounds(
        Losing(client_app(Counting), clients=5),
        settings,
        Conduct(SIGNER, retries=1),
        state=start(),
        save=lambda state: None,
    )
    assert state.counts is not None
    assert state.counts.replies == 5


def test_a_run_that_goes_on_does_not_count_again_and_holds_the_same_counts_bit_for_bit(tmp_path: Path) -> None:
    settings = federation(census=CENSUS, rounds=2)
    saved: list[ServerState] = []
    first = run(client_app(Counting), save=saved.append, rounds=1)
    save_checkpoint(tmp_path, saved[0], federation=settings, signer=SIGNER)
    loaded = load_latest(tmp_path, federation=settings, signer=SIGNER)
    assert loaded is not None
    assert loaded.counts is not None
    assert first.counts is not None
    assert loaded.counts.totals.tobytes() == first.counts.totals.tobytes()
    assert (loaded.counts.noise_std, loaded.counts.replies) == (first.counts.noise_std, first.counts.replies)

    class Unasked(TinyMerchant):
        def count_statistics(self, instruction: Instruction) -> Answer:
            raise AssertionError("asked to count again")

    assert run(client_app(Unasked), state=loaded).counts is loaded.counts


def test_a_run_that_went_on_without_counts_asks_for_none_later() -> None:
    """Round 1 is done; clients refused to count then, and would not now."""
    without = run(client_app(refusing(0, 1, 2)), rounds=1)
    assert (without.round_index, without.counts) == (1, None)
    later = run(client_app(Counting), state=without)
    assert (later.round_index, later.counts) == (2, None)


def test_a_checkpoint_without_counts_comes_back_without(tmp_path: Path) -> None:
    settings = federation()
    save_checkpoint(tmp_path, start(), federation=settings, signer=SIGNER)
    loaded = load_latest(tmp_path, federation=settings, signer=SIGNER)
    assert loaded is not None
    assert loaded.counts is None


def _plan(**changes: Any) -> PrivacyPlan:
    public = {
        "sampling_rate": 1.0,
        "rounds": 1,
        "local_steps": 1,
        "clip_norm": 1.0,
        "clipping": "flat",
        "expected_people": 8,
        "statistics_noise_multiplier": 4.0,
    }
    return PrivacyPlan.calibrate(8.0, 1e-5, **(public | changes))


@pytest.mark.parametrize(
    ("changes", "client", "server"),
    [
        ({}, 4 / 8, 0.0),
        ({"trust": "distributed", "noise_sharers": 4}, 2 / 8, 0.0),
        ({"trust": "central"}, 0.0, 4 / 8),
    ],
)
def test_noise_of_the_census_is_that_of_the_plan(changes: dict[str, Any], client: float, server: float) -> None:
    census = census_of(_plan(**changes), COUNTS)
    assert (census.expected_people, census.client_noise_std, census.server_noise_std) == (8, client, server)


def test_under_central_trust_the_server_adds_the_noise_to_the_sum_once() -> None:
    """Exact zeros come in; what is kept is normal noise of sigma 4, whoever and however many replied."""
    wide = (ArraySpec("pairs", (4000,)),)
    census = census_of(_plan(trust="central"), wide)

    class Nothing(Counting):
        statistics_schema = wide

        def count_statistics(self, instruction: Instruction) -> Answer:
            return Answer({"pairs": np.zeros(4000, np.float32)}, head_of(self.partition, 0))

    counts = run(client_app(Nothing), census=census, rounds=1).counts
    assert counts is not None
    assert counts.noise_std == pytest.approx(4.0)
    assert is_noise_of(counts.totals, 4.0)
    assert not is_noise_of(counts.totals * 2 / 3, 4.0)
    assert not is_noise_of(counts.totals * 3 / 2, 4.0)


def _judged(
    values: np.ndarray, census: Census, *, seen: tuple[int, ...] = (), **changes: Any
) -> Admitted | Quarantined:
    answer = Statistics("run-1", 3, BASE, PLAN, ledger_head=HEAD, arrays={"pairs": values.astype(np.float32)})
    reply = Message(statistics_to_record(replace(answer, **changes)), reply_to=message_to(5))
    return admit_counts(reply, asked={5: None}, seen=seen, instruction=instruction(), census=census)


WIDE = (ArraySpec("pairs", (2000,)),)


def test_an_honest_reply_is_admitted_and_one_without_noise_or_of_a_crowd_is_not() -> None:
    census, rng = census_of(_plan(), WIDE), np.random.default_rng(0)
    noise = 4 / 8 * rng.standard_normal(2000)
    one_cell = np.zeros(2000)
    one_cell[3] = CROWD  # everybody has the same one pair, at four times as many people as expected
    assert isinstance(_judged(noise, census), Admitted)
    assert isinstance(_judged(noise + one_cell, census), Admitted)
    assert _judged(0.5 * noise, census) == Quarantined("too-short")
    assert _judged(noise + 10 * one_cell, census) == Quarantined("too-long")
    assert _judged(noise, census, seen=(5,)) == Quarantined("twice")
    assert _judged(noise, census, round_index=4) == Quarantined("other-round")
    assert _judged(noise[:5], census) == Quarantined("malformed")


def test_an_update_is_no_answer_to_counting() -> None:
    from tests.tiny_federation import reply_from

    judged = admit_counts(
        reply_from(5), asked={5: None}, seen=(), instruction=instruction(), census=replace(CENSUS, schema=SCHEMA)
    )
    assert judged == Quarantined("malformed")


def test_counts_of_one_reply_are_its_own() -> None:
    from server.asking import Tally

    tally = Tally(CENSUS.start())
    tally.total.add(np.arange(7.0), weight=3.0)
    tally.admitted = 1
    counts = counts_of(tally, CENSUS)
    assert counts.totals.tolist() == (8 * np.arange(7.0)).tolist()
    assert isinstance(counts, Counts)
    assert counts.noise_std == 2.0
