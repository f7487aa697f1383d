"""How a contender is paced: one round to warm up, then timed runs of some rounds, each begun when it is told to.

A line of JSON on stdout says what happened, a line on stdin says go on. Between its runs a contender waits, so that
contenders in processes of their own take turns on one machine.
"""

import json
import sys
import time
from collections.abc import Callable

READY, RAN, DONE = "ready", "ran", "done"


class Pace:
    """Told of every round; stops the contender between timed runs.

    Args:
        runs: timed runs, >= 1.
        rounds: of one run, >= 1.
        say: takes what happened.
        wait: returns when the next run may begin; after the last one, when the contender may end.
    """

    def __init__(self, *, runs: int, rounds: int, say: Callable[[dict], None], wait: Callable[[], None]) -> None:
        self.total = 1 + runs * rounds
        self._rounds, self._say, self._wait = rounds, say, wait
        self._finished, self._began = 0, 0.0

    def after_round(self) -> None:
        """Call once after each of ``total`` rounds."""
        now = time.perf_counter()
        self._finished += 1
        if (self._finished - 1) % self._rounds:
            return
        timed = {"seconds": now - self._began} if self._finished > 1 else {}
        self._say({"event": RAN if timed else READY} | timed)
        self._wait()
        self._began = time.perf_counter()


def paced_by_pipe(*, runs: int, rounds: int) -> Pace:
    """The pace of a process: lines of JSON on stdout, a line on stdin for each run."""
    return Pace(runs=runs, rounds=rounds, say=say, wait=sys.stdin.readline)


def say(event: dict) -> None:
    """Write one event at once."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()
