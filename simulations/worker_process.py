"""One worker process of the local engine: holds one model and answers for its clients, one message after the other.

It is started by ``simulations.workers`` and ends with its parent, however that ends: the operating system closes the
parent's end of the pipe, and nothing here waits for anything else.
"""

import json
import os
import queue
import sys
import threading
from importlib import import_module
from multiprocessing.connection import Connection

from fedrec.quiet import silence

BEGIN = b"B"
MESSAGE = b"M"


def main(descriptor: int, app: str) -> None:
    """Answer what comes through the pipe until its other end is closed.

    Args:
        descriptor: of this process's end of the pipe.
        app: ``module:function``; the function makes the client app. Imported at once, while the parent prepares.
    """
    silence()
    pipe = Connection(descriptor)
    frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_ahead, args=(pipe, frames), daemon=True).start()
    module, _, function = app.partition(":")
    make_app = getattr(import_module(module), function)

    from flwr.common.serde import message_from_proto, message_to_proto
    from flwr.proto.message_pb2 import Message as ProtoMessage

    from simulations.local_grid import LocalGrid

    grid = LocalGrid(make_app(), clients=0)
    while True:
        frame = frames.get()
        if frame[:1] == BEGIN:
            settings = json.loads(frame[1:])
            grid = LocalGrid(make_app(), **settings)  # the last run's merchants go
        else:
            reply = grid.answer(message_from_proto(ProtoMessage.FromString(frame[1:])))
            pipe.send_bytes(message_to_proto(reply).SerializeToString())


def _read_ahead(pipe: Connection, frames: "queue.SimpleQueue[bytes]") -> None:
    """Take in what comes, so that the parent never waits for a worker that is busy; leave at once with the parent."""
    try:
        while True:
            frames.put(pipe.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)  # whatever is being computed has nobody left to go to


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
