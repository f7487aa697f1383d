"""The round loop: ask, admit, average, move, measure, save. It starts at any round and repeats none."""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np
from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from fedrec.errors import RunError
from fedrec.schema import Arrays, unflatten
from fedrec.wire import Instruction
from server.admission import Admitted, Quarantined, admit
from server.asking import Cohort, Tally, ask
from server.measures import Measuring, admit_measures, mean_measures, set_aside
from server.roster import Roster, eligible
from server.signer import Signer
from server.strategy import (
    Federation,
    RoundRecord,
    ServerState,
    choose_clients,
    keep_best,
    move,
    published,
)

log = logging.getLogger(__name__)

Judge = Callable[[Arrays], dict[str, float]]
Save = Callable[[ServerState], None]
EpsilonAfter = Callable[[int], float | None]


def run_rounds(
    grid: Grid,
    federation: Federation,
    *,
    state: ServerState,
    signer: Signer,
    save: Save,
    judge: Judge | None = None,
    epsilon_after: EpsilonAfter | None = None,
    timeout_s: float | None = None,
    join_timeout_s: float = 300.0,
    roster: Roster | None = None,
) -> ServerState:
    """Run every round that ``state`` has not finished yet.

    Args:
        grid: Flower's way to the clients.
        federation: public constants of the run.
        state: where to start; rounds ``state.round_index + 1`` to ``federation.rounds`` follow.
        signer: signs every instruction with the key that clients pin.
        save: called after each round with a state whose last record is that round; must be durable when it returns.
        judge: measures an adapter on the public panel; ``panel_loss`` picks the best round. None keeps the last.
        epsilon_after: epsilon that a client asked in each of this many rounds has spent; None without privacy.
        timeout_s: how long to wait for replies in a round; None waits for all.
        join_timeout_s: how long to wait for the expected clients to join.
        roster: who may take part; its clients alone are asked, and must sign. None asks all who are there.

    Returns:
        The state after the last round.

    Raises:
        RunError: the expected clients did not join.
    """
    if state.round_index < federation.rounds:
        wait_for_clients(grid, federation.clients, timeout_s=join_timeout_s)
    while state.round_index < federation.rounds:
        state = run_round(
            grid,
            federation,
            state=state,
            signer=signer,
            judge=judge,
            epsilon_after=epsilon_after,
            timeout_s=timeout_s,
            roster=roster,
        )
        save(state)
    return state


def run_round(
    grid: Grid,
    federation: Federation,
    *,
    state: ServerState,
    signer: Signer,
    judge: Judge | None = None,
    epsilon_after: EpsilonAfter | None = None,
    timeout_s: float | None = None,
    roster: Roster | None = None,
) -> ServerState:
    """Run the round after ``state``; with fewer admitted replies than the quorum it is void and only counted."""
    started = time.perf_counter()
    round_index = state.round_index + 1
    members = eligible(grid.get_node_ids(), roster)
    asked = {node: members[node] for node in choose_clients(list(members), federation, round_index=round_index)}
    cohort = Cohort(grid, asked, signer, timeout_s)
    tally = _train(cohort, federation, state=state)
    void = tally.admitted < federation.quorum
    state = _with_heads(move(state, None if void else tally.total / tally.admitted, federation), tally)
    measures = measure(judge, published(state, federation), federation)
    reasons, bytes_up = tally.reasons, tally.bytes_up
    if not void:
        state = keep_best(state, federation, measures=measures)
    if not void and federation.measuring and federation.measuring.is_due(round_index):
        released = _measure(cohort, federation, federation.measuring, state=state)
        state = _with_heads(state, released)
        measures |= mean_measures(released, federation.measuring)
        reasons, bytes_up = reasons + set_aside(released), bytes_up + released.bytes_up
    record = RoundRecord(
        round_index=round_index,
        asked=len(asked),
        admitted=tally.admitted,
        quarantined=reasons.total(),
        reasons=dict(sorted(reasons.items())),
        void=void,
        seconds=round(time.perf_counter() - started, 3),
        bytes_up=bytes_up,
        measures=measures,
        epsilon_spent=epsilon_after(round_index) if epsilon_after else None,
    )
    _log(record)
    return replace(state, records=(*state.records, record))


def measure(judge: Judge | None, adapter: np.ndarray, federation: Federation) -> dict[str, float]:
    """Public measures of an adapter, (P,); none without a judge."""
    found = judge(unflatten(adapter, federation.schema)) if judge else {}
    return {name: float(value) for name, value in found.items()}


def wait_for_clients(grid: Grid, expected: int, *, timeout_s: float, poll_s: float = 0.1) -> None:
    """Return once ``expected`` clients have joined; raise ``RunError`` when they do not in time."""
    deadline = time.monotonic() + timeout_s
    while (joined := len(list(grid.get_node_ids()))) < expected:
        if time.monotonic() >= deadline:
            raise RunError(f"{joined} of {expected} clients joined within {timeout_s:g} s; start the missing clients")
        time.sleep(poll_s)


def _train(cohort: Cohort, federation: Federation, *, state: ServerState) -> Tally:
    """Ask for updates of the current adapter."""
    instruction = _instruction(federation, state.adapter, round_index=state.round_index + 1)

    def verdict(message: Message, seen: Collection[int]) -> Admitted | Quarantined:
        return admit(
            message,
            asked=cohort.asked,
            seen=seen,
            instruction=instruction,
            schema=federation.schema,
            bounds=federation.bounds,
        )

    return ask(
        cohort,
        instruction,
        message_type=MessageType.TRAIN,
        verdict=verdict,
        schema=federation.schema,
        ledger_heads=state.ledger_heads,
    )


def _measure(cohort: Cohort, federation: Federation, measuring: Measuring, *, state: ServerState) -> Tally:
    """Ask for noised metrics of the adapter that would be published after the round that ``state`` has finished."""
    instruction = _instruction(federation, published(state, federation), round_index=state.round_index)

    def verdict(message: Message, seen: Collection[int]) -> Admitted | Quarantined:
        return admit_measures(message, asked=cohort.asked, seen=seen, instruction=instruction, measuring=measuring)

    return ask(
        cohort,
        instruction,
        message_type=MessageType.EVALUATE,
        verdict=verdict,
        schema=measuring.schema,
        ledger_heads=state.ledger_heads,
    )


def _instruction(federation: Federation, adapter: np.ndarray, *, round_index: int) -> Instruction:
    return Instruction(
        run_id=federation.run_id,
        round_index=round_index,
        base_digest=federation.base_digest,
        plan_digest=federation.plan_digest,
        adapter=unflatten(adapter, federation.schema),
    )


def _with_heads(state: ServerState, tally: Tally) -> ServerState:
    return replace(state, ledger_heads={**state.ledger_heads, **tally.ledger_heads})


def _log(record: RoundRecord) -> None:
    """One line a round, public facts only."""
    line = {name: value for name, value in record.to_dict().items() if not isinstance(value, dict)}
    log.info(" ".join(f"{name}={value}" for name, value in line.items()))
