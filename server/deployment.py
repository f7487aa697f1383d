"""A federation across machines: its folder, its server's keys and clients, and a run that outlives SuperLink."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from fedrec.errors import RunError
from fedrec.run_config import load_run_config
from fedrec.runfolder import RunFolder
from server.control import open_control
from server.flower_run import open_grid
from server.job import Job, OnRound, job_of_run, run_job
from server.registry import load_registry
from server.roster import Registered
from server.runtime_grid import RunLostError
from server.settings import ServerSettings
from server.strategy import RoundRecord, ServerState

log = logging.getLogger(__name__)

LOSSES_IN_A_ROW = 5  # without a finished round between them: then somebody has to look
VOIDS_IN_A_ROW = 3  # then too: what is wrong would use up the rounds that are left, and no plan gives them back
RETRIES = 3  # of a round that was cut short; free for whoever has answered it
PAUSE_S = 5.0  # SuperLink takes two seconds to start
DEADLINE_S = 600.0  # where the settings name none: what a killed client had been sent is never handed out again


def run_federation(
    path: Path, settings: ServerSettings, *, until_round: int | None, resume: bool, on_round: OnRound
) -> ServerState:
    """Run the rounds of a federation folder with the clients that are enrolled at a running server.

    Flower gives a run up when SuperLink is killed; another one then takes over at the newest checkpoint. Clients that
    have answered the broken round send the same reply again and are charged nothing.

    Args:
        path: what ``fedrec federation new`` made.
        settings: the server's.
        until_round: stop after this round; None runs the whole plan.
        resume: go on with a folder in which rounds were run.
        on_round: told of each round after it is on disk.

    Returns:
        The state after the last round.

    Raises:
        RunError: the folder is none or in use, was begun and ``resume`` is not given, the server is not there, or
            too few clients are; too many rounds in a row did not count, or none did.
        PrivacyError: too many clients are out of budget.
    """
    with RunFolder.open_for_resume(path) as folder:
        if not resume and (done := len(folder.read_events())):  # half a line may be there, which resuming mends
            raise RunError(f"{path}: {done} rounds were run; go on with --resume")
        job = _job(folder, settings)
        with open_control(settings.loopback) as control:
            control.nodes()  # is the server there at all?
        return _run_through_losses(job, settings, until_round=until_round, on_round=on_round)


def enrolled(settings: ServerSettings) -> Mapping[int, Registered]:
    """Who may take part now, by Flower's number of their node; read from disk, so that a revocation holds at once."""
    active = load_registry(settings.state).active(datetime.now(UTC))
    return {one.node_id: Registered(one.reply_key, one.weight) for one in active if one.node_id is not None}


def _job(folder: RunFolder, settings: ServerSettings) -> Job:
    """The folder's job, with who may take part and what was last seen of their ledgers."""
    job = job_of_run(
        folder,
        load_run_config(folder.config),
        key=settings.server_key,
        roster=lambda: enrolled(settings),
        heads=settings.state / "heads.json",
    )
    conduct = replace(job.conduct, timeout_s=job.conduct.timeout_s or DEADLINE_S, retries=RETRIES)
    return replace(job, conduct=conduct)


def _run_through_losses(
    job: Job, settings: ServerSettings, *, until_round: int | None, on_round: OnRound
) -> ServerState:
    """Run the job, again from its newest checkpoint each time Flower has lost the run."""
    losses, voids, counted = 0, list[RoundRecord](), False

    def progressed(record: RoundRecord) -> None:
        nonlocal losses, voids, counted
        losses, voids, counted = 0, [*voids, record] if record.void else [], counted or not record.void
        on_round(record)
        if len(voids) == VOIDS_IN_A_ROW:
            raise RunError(_void(voids))

    while True:
        try:
            with open_grid(settings) as grid:
                state = run_job(grid, job, on_round=progressed, until_round=until_round)
            if voids and not counted:
                raise RunError(_void(voids))
            return state
        except RunLostError as error:
            losses += 1
            if losses == LOSSES_IN_A_ROW:
                raise
            log.warning("run=lost reason=%r resume_in_s=%g", str(error), PAUSE_S)
            time.sleep(PAUSE_S)


def _void(rounds: Sequence[RoundRecord]) -> str:
    """Why, in the words under which replies were set aside."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in rounds[-1].reasons.items())
    return (
        f"round {rounds[0].round_index} to {rounds[-1].round_index}: too few replies counted; of the last round were "
        f"set aside: {reasons}; see SECURITY.md and the clients' logs for these words, then go on with --resume"
    )
