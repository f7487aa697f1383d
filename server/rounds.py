"""The round loop: ask, admit, average, move, measure, save. It starts at any round and repeats none."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedrec.errors import RunError
from fedrec.schema import Arrays, flatten, parameters_of, unflatten
from fedrec.wire import Instruction, instruction_to_record, payload_bytes
from server.admission import Admitted, admit
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
    save: Save,
    judge: Judge | None = None,
    epsilon_after: EpsilonAfter | None = None,
    timeout_s: float | None = None,
    join_timeout_s: float = 300.0,
) -> ServerState:
    """Run every round that ``state`` has not finished yet.

    Args:
        grid: Flower's way to the clients.
        federation: public constants of the run.
        state: where to start; rounds ``state.round_index + 1`` to ``federation.rounds`` follow.
        save: called after each round with a state whose last record is that round; must be durable when it returns.
        judge: measures an adapter on the public panel; ``panel_loss`` picks the best round. None keeps the last.
        epsilon_after: epsilon that a client asked in each of this many rounds has spent; None without privacy.
        timeout_s: how long to wait for replies in a round; None waits for all.
        join_timeout_s: how long to wait for the expected clients to join.

    Returns:
        The state after the last round.

    Raises:
        RunError: the expected clients did not join.
    """
    if state.round_index < federation.rounds:
        wait_for_clients(grid, federation.clients, timeout_s=join_timeout_s)
    while state.round_index < federation.rounds:
        state = run_round(grid, federation, state=state, judge=judge, epsilon_after=epsilon_after, timeout_s=timeout_s)
        save(state)
    return state


def run_round(
    grid: Grid,
    federation: Federation,
    *,
    state: ServerState,
    judge: Judge | None = None,
    epsilon_after: EpsilonAfter | None = None,
    timeout_s: float | None = None,
) -> ServerState:
    """Run the round after ``state``; with fewer admitted replies than the quorum it is void and only counted."""
    started = time.perf_counter()
    round_index = state.round_index + 1
    asked = choose_clients(list(grid.get_node_ids()), federation, round_index=round_index)
    tally = _ask(grid, federation, state=state, asked=asked, timeout_s=timeout_s)
    void = tally.admitted < federation.quorum
    state = move(state, None if void else tally.total / tally.admitted, federation)
    measures = measure(judge, published(state, federation), federation)
    if not void:
        state = keep_best(state, federation, measures=measures)
    record = RoundRecord(
        round_index=round_index,
        asked=len(asked),
        admitted=tally.admitted,
        quarantined=tally.reasons.total(),
        reasons=dict(sorted(tally.reasons.items())),
        void=void,
        seconds=round(time.perf_counter() - started, 3),
        bytes_up=tally.bytes_up,
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


class _Tally:
    """The running sum of a round; one update at a time is in memory."""

    def __init__(self, parameters: int) -> None:
        self.total = np.zeros(parameters)
        self.admitted = 0
        self.bytes_up = 0
        self.reasons: Counter[str] = Counter()


def _ask(
    grid: Grid, federation: Federation, *, state: ServerState, asked: Sequence[int], timeout_s: float | None
) -> _Tally:
    """Send the instruction to ``asked`` and sum what is admitted, each client with the same weight."""
    instruction = Instruction(
        run_id=federation.run_id,
        round_index=state.round_index + 1,
        base_digest=federation.base_digest,
        plan_digest=federation.plan_digest,
        adapter=unflatten(state.adapter, federation.schema),
    )
    tally = _Tally(parameters_of(federation.schema))
    expected, seen = frozenset(asked), set[int]()
    for message in grid.send_and_receive(_messages(instruction, asked), timeout=timeout_s):
        verdict = admit(
            message,
            asked=expected,
            seen=seen,
            instruction=instruction,
            schema=federation.schema,
            bounds=federation.bounds,
        )
        if message.metadata.src_node_id in expected:
            seen.add(message.metadata.src_node_id)
        if message.has_content():
            tally.bytes_up += payload_bytes(message.content)
        if isinstance(verdict, Admitted):
            tally.total += flatten(verdict.arrays, federation.schema)
            tally.admitted += 1
        else:
            tally.reasons[verdict.reason] += 1
    if len(seen) < len(expected):
        tally.reasons["no-reply"] = len(expected) - len(seen)
    return tally


def _messages(instruction: Instruction, asked: Sequence[int]) -> Iterator[Message]:
    """One message for each node; they share the encoded arrays, which no client can change."""
    record = instruction_to_record(instruction)
    for node_id in asked:
        content = RecordDict(dict(record))
        yield Message(content, node_id, MessageType.TRAIN, group_id=str(instruction.round_index))


def _log(record: RoundRecord) -> None:
    """One line a round, public facts only."""
    line = {name: value for name, value in record.to_dict().items() if not isinstance(value, dict)}
    log.info(" ".join(f"{name}={value}" for name, value in line.items()))
