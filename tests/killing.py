"""A process whose children write until they are killed at no particular moment."""

import os
import random
import signal
import subprocess
import time

WRITES_S = 0.008  # about two of a ledger's charges or a store's appends


def killed_at_random(mortal: subprocess.Popen, run: int) -> set[str]:
    """Let one child write for a random while, kill it, and return what it had acknowledged.

    Args:
        mortal: forks a child for each line that it reads. It says ``pid NUMBER`` when the child begins and ``dead``
            when it has ended; in between the child says each name that it wrote, on a line of its own.
        run: a number for the child, part of its names.
    """
    mortal.stdin.write(f"{run}\n")
    mortal.stdin.flush()
    seen: set[str] = set()
    child, wanted = 0, random.randrange(8)
    while not child or len(seen) < wanted:
        line = mortal.stdout.readline().split()
        assert line, "it ended without a word"
        assert line[0] != "dead", "it died of itself"
        if line[0] == "pid":
            child = int(line[1])
        else:
            seen.add(line[0])
    moment = time.perf_counter() + random.random() * WRITES_S
    while time.perf_counter() < moment:
        pass
    os.kill(child, signal.SIGKILL)
    while (line := mortal.stdout.readline().strip()) != "dead":
        assert line, "it ended without a word"
        seen.add(line)
    return seen
