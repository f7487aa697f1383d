"""Live progress on stderr: bars for a person at a terminal, one ``key=value`` line a step for a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

LINE_EVERY_S = 5.0


class Stage:
    """One stretch of work with a known number of steps."""

    def __init__(self, name: str, total: int, *, bars: Bars | None) -> None:
        self._name, self._total, self._bars = name, total, bars
        self._done, self._started, self._last_line = 0, time.monotonic(), 0.0
        self._task: TaskID | None = bars.add_task(name, total=max(total, 1), text="") if bars else None

    def advance(self, *, text: str = "") -> None:
        """One more step is done."""
        self.move_to(self._done + 1, text=text)

    def move_to(self, done: int, *, text: str = "") -> None:
        """So many steps are done; ``text`` says what the last one found."""
        self._done = done
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done)
            if text:
                self._bars.update(self._task, text=text)
        elif time.monotonic() - self._last_line >= LINE_EVERY_S or done == self._total:
            self._last_line = time.monotonic()
            self._line(text)

    def finish(self) -> None:
        """Close the bar, also when there was nothing to do."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=max(self._total, 1))

    def _line(self, text: str) -> None:
        seconds = time.monotonic() - self._started
        about = f" {text}" if text else ""
        sys.stderr.write(f"stage={self._name!r} step={self._done}/{self._total} seconds={seconds:.1f}{about}\n")


class Progress:
    """Shows stages one below the other.

    Args:
        enabled: false shows nothing at all.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled
        self._bars: Bars | None = None

    def __enter__(self) -> Self:
        console = Console(stderr=True)
        if self._enabled and console.is_terminal:
            self._bars = Bars(
                TextColumn("{task.description:<28}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}"),
                console=console,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Stage]:
        """Open a stage of ``total`` steps."""
        stage = Stage(name, total, bars=self._bars) if self._enabled else _Silent(name, total, bars=None)
        yield stage
        stage.finish()


class _Silent(Stage):
    """A stage that says nothing."""

    def move_to(self, done: int, *, text: str = "") -> None:
        self._done = done
