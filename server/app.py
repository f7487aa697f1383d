"""The Flower ``ServerApp``: find the job, run it."""

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.job import Job, OnRound, job_from_workspace, run_job
from server.strategy import ServerState


def build_app(
    job_of: Callable[[Context], Job] = job_from_workspace,
    *,
    on_round: OnRound | None = None,
    on_finish: Callable[[ServerState], None] | None = None,
) -> ServerApp:
    """Make a server app.

    Args:
        job_of: finds what to run from Flower's context.
        on_round: told of each round after it is on disk.
        on_finish: told of the state after the last round.
    """
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        state = run_job(grid, job_of(context), on_round=on_round)
        if on_finish:
            on_finish(state)

    return server_app


app = build_app()
