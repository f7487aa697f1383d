"""A mistake is one line on stderr and an exit code; only a bug shows a traceback."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from fedrec.errors import FedrecError

P = ParamSpec("P")
R = TypeVar("R")


def one_line_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Let a command end on a ``FedrecError`` with ``error: ...`` on stderr and the error's own exit code.

    Goes below the ``@app.command()`` line. Any other exception passes through untouched.
    """

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except FedrecError as error:
            typer.echo("error: " + " ".join(str(error).split()), err=True)
            raise typer.Exit(error.exit_code) from error

    return guarded
