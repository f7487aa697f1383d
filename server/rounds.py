"""The round loop: ask, admit, average, move, measure, save. It starts at any round and repeats none."""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from fedrec.errors import BudgetSpentError
from fedrec.schema import Arrays, parameters_of, unflatten
from fedrec.wire import Instruction
from server.admission import Admitted, Quarantined, admit
from server.asking import NOT_WAITED_FOR, Cohort, Tally, ask
from server.averaging import RunningMean
from server.census import Census, admit_counts, counts_of
from server.measures import Measuring, admit_measures, mean_measures, set_aside
from server.roster import JOIN_TIMEOUT_S, Members, Roster, eligible, wait_for_clients
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


@dataclass(frozen=True, eq=False)
class Conduct:
    """How a server goes about its rounds; clients have no part in any of it.

    Attributes:
        signer: signs every instruction with the key that clients pin.
        judge: measures an adapter on the public panel; ``panel_loss`` picks the best round. None keeps the last.
        epsilon_after: epsilon that a client asked in each of this many rounds has spent; None without privacy.
        timeout_s: how long to wait for replies in a round; None waits for all.
        join_timeout_s: how long to wait, before each round, for enough clients to be there.
        retries: how often a round is asked again that was void because messages were lost; whoever has answered it
            sends the same reply and is charged nothing.
        roster: who may take part, and under which keys; its clients alone are asked, and must sign. None, in a
            simulation, asks all who are there and checks no signature.
    """

    signer: Signer
    judge: Judge | None = None
    epsilon_after: EpsilonAfter | None = None
    timeout_s: float | None = None
    join_timeout_s: float = JOIN_TIMEOUT_S
    retries: int = 0
    roster: Roster | None = None


def run_rounds(
    grid: Grid,
    federation: Federation,
    conduct: Conduct,
    *,
    state: ServerState,
    save: Save,
    until_round: int | None = None,
) -> ServerState:
    """Run every round that ``state`` has not finished yet.

    Args:
        grid: Flower's way to the clients.
        federation: public constants of the run.
        conduct: how the server goes about it.
        state: where to start; rounds ``state.round_index + 1`` to ``federation.rounds`` follow.
        save: called after each round with a state whose last record is that round; must be durable when it returns.
        until_round: stop after this round; None for the last one of the run.

    Returns:
        The state after the last round that was run.

    Raises:
        RunError: too few clients are there.
        BudgetSpentError: too few have budget left.
    """
    last = federation.rounds if until_round is None else min(federation.rounds, until_round)
    roster = conduct.roster
    needed = federation.quorum if roster else federation.clients  # everyone joins a simulation before it begins
    state = _with_counts(grid, federation, conduct, state=state, needed=needed) if state.round_index < last else state
    tries = 0
    while state.round_index < last:
        members = wait_for_clients(grid, needed, roster=roster, timeout_s=conduct.join_timeout_s)
        after = run_round(grid, federation, conduct, state=state, members=members)
        if tries < conduct.retries and was_cut_short(after.records[-1], federation):
            tries += 1
            log.warning("round=%d void=cut-short try=%d", after.round_index, tries + 1)
            continue
        state, tries = after, 0
        save(state)
        if state.records[-1].void:
            check_budgets(state, federation, clients=roster().keys() if roster else members.keys())
        needed = federation.quorum
    return state


def run_round(
    grid: Grid, federation: Federation, conduct: Conduct, *, state: ServerState, members: Members | None = None
) -> ServerState:
    """Run the round after ``state`` with some of ``members``, of all who are there when None.

    With fewer admitted replies than the quorum it is void and only counted.
    """
    started = time.perf_counter()
    round_index = state.round_index + 1
    members = eligible(grid.get_node_ids(), None) if members is None else members
    asked = {node: members[node] for node in choose_clients(list(members), federation, round_index=round_index)}
    cohort = Cohort(grid, asked, conduct.signer, conduct.timeout_s, federation.clients_per_round)
    tally = _train(cohort, federation, state=state)
    void = tally.admitted < federation.quorum
    state = _with_answers(move(state, None if void else tally.total.mean(), federation), tally)
    measures = measure(conduct.judge, published(state, federation), federation)
    reasons, bytes_up = tally.reasons, tally.bytes_up
    if not void:
        state = keep_best(state, federation, measures=measures)
    if not void and federation.measuring and federation.measuring.is_due(round_index):
        released = _measure(cohort, federation, federation.measuring, state=state)
        state = replace(state, ledger_heads={**state.ledger_heads, **released.ledger_heads})
        measures |= mean_measures(released, federation.measuring)
        reasons, bytes_up = reasons + set_aside(released), bytes_up + released.bytes_up
    record = RoundRecord(
        round_index=round_index,
        asked=len(asked),
        admitted=tally.admitted,
        quarantined=sum(count for reason, count in reasons.items() if not reason.endswith(NOT_WAITED_FOR)),
        reasons=dict(sorted(reasons.items())),
        void=void,
        seconds=round(time.perf_counter() - started, 3),
        bytes_up=bytes_up,
        measures=measures,
        epsilon_spent=conduct.epsilon_after(round_index) if conduct.epsilon_after else None,
    )
    _log(record)
    return replace(state, records=(*state.records, record))


def _with_counts(
    grid: Grid, federation: Federation, conduct: Conduct, *, state: ServerState, needed: int
) -> ServerState:
    """Add everybody's counts before the first round, where they were agreed on; asked again when too few came in."""
    census = federation.census
    for _ in range(1 + conduct.retries):
        if census is None or state.round_index > 0 or state.counts is not None:
            break
        members = wait_for_clients(grid, needed, roster=conduct.roster, timeout_s=conduct.join_timeout_s)
        cohort = Cohort(grid, members, conduct.signer, conduct.timeout_s, len(members))
        tally = _count(cohort, federation, census, state=state)
        log.info("statistics asked=%d admitted=%d reasons=%s", len(members), tally.admitted, dict(tally.reasons))
        state = replace(state, ledger_heads={**state.ledger_heads, **tally.ledger_heads})
        if tally.admitted >= federation.census_quorum:
            state = replace(state, counts=counts_of(tally, census))
        else:
            log.warning("statistics=none admitted=%d needed=%d", tally.admitted, federation.census_quorum)
    return state


def was_cut_short(record: RoundRecord, federation: Federation) -> bool:
    """Whether a round would have counted if no message and no client had been lost on the way."""
    lost = record.reasons.get("failed", 0) + record.reasons.get("no-reply", 0)
    return record.void and record.admitted + lost >= federation.quorum


def check_budgets(state: ServerState, federation: Federation, *, clients: Collection[int]) -> None:
    """Stop a run in which no later round can count; asking would cost nothing, and bring nothing.

    Args:
        state: after a void round.
        clients: all who may be asked, there or not.

    Raises:
        BudgetSpentError: of all clients too few have budget left for a quorum, and rounds are left.
    """
    spent = len(state.spent.intersection(clients))
    if len(clients) - spent < federation.quorum and state.round_index < federation.rounds:
        raise BudgetSpentError(
            f"{spent} of {len(clients)} clients have no budget left for a round, and a round needs "
            f"{federation.quorum}: stopped after round {state.round_index} of {federation.rounds}; the adapter of "
            f"round {state.best_round} is published"
        )


def measure(judge: Judge | None, adapter: np.ndarray, federation: Federation) -> dict[str, float]:
    """Public measures of an adapter, (P,); none without a judge."""
    found = judge(unflatten(adapter, federation.schema)) if judge else {}
    return {name: float(value) for name, value in found.items()}


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
        total=federation.averaging.start(parameters_of(federation.schema)),
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
        total=RunningMean(len(measuring.names)),
        ledger_heads=state.ledger_heads,
    )


def _count(cohort: Cohort, federation: Federation, census: Census, *, state: ServerState) -> Tally:
    """Ask for counts; the adapter goes along as with any instruction."""
    instruction = _instruction(federation, state.adapter, round_index=1)

    def verdict(message: Message, seen: Collection[int]) -> Admitted | Quarantined:
        return admit_counts(message, asked=cohort.asked, seen=seen, instruction=instruction, census=census)

    return ask(
        cohort,
        instruction,
        message_type=MessageType.QUERY,
        verdict=verdict,
        schema=census.schema,
        total=census.start(),
        ledger_heads=state.ledger_heads,
    )


def _instruction(federation: Federation, adapter: np.ndarray, *, round_index: int) -> Instruction:
    return Instruction(
        run_id=federation.run_id,
        round_index=round_index,
        base_digest=federation.base_digest,
        agreement_digest=federation.agreement_digest,
        adapter=unflatten(adapter, federation.schema),
    )


def _with_answers(state: ServerState, tally: Tally) -> ServerState:
    """Remember where ledgers end and who has no budget left, until they answer otherwise."""
    heads = {**state.ledger_heads, **tally.ledger_heads}
    return replace(state, ledger_heads=heads, spent=(state.spent | tally.spent) - tally.ledger_heads.keys())


def _log(record: RoundRecord) -> None:
    """One line a round, public facts only."""
    line = {name: value for name, value in record.to_dict().items() if not isinstance(value, dict)}
    log.info(" ".join(f"{name}={value}" for name, value in line.items()))
