"""The Flower ``ServerApp``: find the job, run it."""

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.job import Job, OnRound, job_from_workspace, run_job
from server.polling import PollingGrid
from server.strategy import ServerState


def build_app(
    job_of: Callable[[Context], Job] = job_from_workspace,
    *,
    on_round: OnRound | None = None,
    on_finish: Callable[[ServerState], None] | None = None,
    closes_folder: bool = False,
    polls: bool = False,
) -> ServerApp:
    """Make a server app.

    Args:
        job_of: finds what to run from Flower's context.
        on_round: told of each round after it is on disk.
        on_finish: told of the state after the last round.
        closes_folder: let the next process into the run folder once the app is done with it, for a folder that
            ``job_of`` opened: Flower calls a run finished while the process that ran it still lives.
        polls: look for replies oftener than Flower does, for clients behind a SuperLink.
    """
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        job = job_of(context)
        try:
            state = run_job(PollingGrid(grid) if polls else grid, job, on_round=on_round)
        finally:
            if closes_folder:
                job.folder.close()
        if on_finish:
            on_finish(state)

    return server_app


app = build_app(closes_folder=True, polls=True)
