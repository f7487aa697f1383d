"""A merchant's process in a deployment, as real as can be; it can be told where to have its accident.

    python -m tests.deployed_client RUN PARTITION ADDRESS FOLDER [ACCIDENT]

``FOLDER`` holds ``ca.crt``, ``node.key`` and ``reply.key``. The accident happens in the first round that it trains.
"""

import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedrec.quiet import silence


def main(run: Path, partition: int, address: str, folder: Path, accident: str = "none") -> None:
    """Stay until SIGTERM."""
    silence()
    from clients.app import build_app
    from clients.link import Link
    from clients.merchant import load_merchant
    from clients.node import run_node
    from fedrec.keyfiles import read_key
    from fedrec.signing import SigningKey

    stop = threading.Event()
    logging.basicConfig(level=logging.INFO, force=True)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    merchant = load_merchant(run, partition)
    merchant._reply_key = SigningKey.load(folder / "reply.key")
    _arrange(accident)
    link = Link(address, (folder / "ca.crt").read_bytes(), read_key(folder / "node.key"))
    run_node(build_app(lambda _: merchant), link, stop=stop, poll_s=0.1)
    logging.shutdown()
    os._exit(0)  # as fedrec client does: to take torch apart in good order takes seconds


def _arrange(accident: str) -> None:
    """Let the accident happen just before one of the steps of a round."""
    import clients.merchant
    from clients.link import Session
    from fedrec.privacy.ledger import Ledger

    steps: dict[str, tuple[Any, str, Callable[[], None]]] = {
        "killed-before-charge": (Ledger, "charge", lambda: os.kill(os.getpid(), signal.SIGKILL)),
        "killed-before-training": (clients.merchant, "private_direction", lambda: os.kill(os.getpid(), signal.SIGKILL)),
        "killed-before-sending": (Session, "reply", lambda: os.kill(os.getpid(), signal.SIGKILL)),
        "stopped": (clients.merchant, "private_direction", lambda: os.kill(os.getpid(), signal.SIGSTOP)),
        "no-memory": (clients.merchant, "private_direction", _run_out_of_memory),
    }
    if accident == "none":
        return
    place, name, happen = steps[accident]
    real, left = getattr(place, name), [happen]

    def step(*arguments: Any, **options: Any) -> Any:
        if left:
            left.pop()()
        return real(*arguments, **options)

    setattr(place, name, step)


def _run_out_of_memory() -> None:
    """Ask for more than the limit of a moment allows."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**24, limits[1]))
    try:
        bytearray(2**30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), *sys.argv[5:])
