"""SuperLink in a process of its own, which ends when the one that started it does, however that ends.

The parent holds the other end of standard input and never writes: the operating system closes it with the parent.
"""

import os
import signal
import sys
import threading
import time

_GRACE_S = 1.5


def follow_parent() -> None:
    """Wait for the end of standard input; then leave, politely if that works."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=follow_parent, daemon=True).start()
    from flwr.superlink.cli.flower_superlink import flower_superlink

    flower_superlink()
