"""A run of Flower's in this process: no ServerApp process is started and no app is fetched, installed or executed.

Flower keeps a run's task until an executor takes it. We start a run, take its task ourselves with the secret that only
this machine's operator can read, and hold the run's ``Grid`` for as long as we say every few seconds that we live.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx
from flwr.common.constant import SubStatus
from flwr.common.serde import run_from_proto
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.interceptors.http.superexec_auth import SuperExecAuthHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from fedrec.errors import RunError
from fedrec.locks import alone
from server.control import open_control
from server.loopback import Loopback
from server.runtime_grid import MAX_REPLY_BYTES, RunLostError, RuntimeGrid
from server.settings import ServerSettings

log = logging.getLogger(__name__)

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_MOST_STRAYS = 100  # tasks of runs whose process died before it took them


@contextmanager
def open_grid(settings: ServerSettings, *, max_reply_bytes: int = MAX_REPLY_BYTES) -> Iterator[RuntimeGrid]:
    """Start a run and hold its grid; Flower learns at the end whether the ``with`` ended well. One at a time a process.

    Args:
        settings: of the server whose SuperLink it is.
        max_reply_bytes: a larger reply counts as an error of its sender.

    Raises:
        RunLostError: SuperLink does not answer or starts no run; inside the ``with``, any call once the run is over.
    """
    loopback = settings.loopback
    token = _started(loopback)
    with _runtime(loopback, RuntimeTokenHttpInterceptor(token)) as client:
        try:
            run = _taken(client)
        except (httpx.HTTPError, ValueError) as error:
            raise RunLostError(f"SuperLink does not hand out the run ({type(error).__name__}); start again") from None
        over = threading.Event()
        heartbeat = HeartbeatSender(_heartbeat(client, over))
        heartbeat.start()
        outcome = SubStatus.FAILED
        try:
            yield RuntimeGrid(client, run, over=over, max_reply_bytes=max_reply_bytes)
            outcome = SubStatus.COMPLETED
        finally:
            heartbeat.stop()
            with suppress(httpx.HTTPError, ValueError):  # it will notice by itself that nobody says any more to live
                client.PushTaskOutput(PushTaskOutputRequest(sub_status=outcome))


def _started(loopback: Loopback) -> str:
    """Start a run and take its task; return the token. One process at a time, so that none takes another's."""
    secret = SuperExecAuthHttpInterceptor(master_secret=loopback.read_secret(), protected_methods={_ACQUIRE})
    try:
        with alone(loopback.state / "run.lock"):
            with open_control(loopback) as control:
                run_id = control.start_run()
            with _runtime(loopback, secret) as client:
                for _ in range(_MOST_STRAYS):
                    offered = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
                    if not offered.token:
                        break
                    if offered.task.run_id == run_id:
                        return offered.token
    except (httpx.HTTPError, ValueError) as error:
        raise RunLostError(f"SuperLink does not hand out the run ({type(error).__name__}); start again") from None
    except RunError as error:
        raise RunLostError(str(error)) from None
    raise RunLostError("another process took the run's task; start again")


def _taken(client: RuntimeHttpClient) -> Run:
    """Tell Flower that the task runs, and this process which one it is."""
    given = client.PullTaskInput(PullTaskInputRequest())  # brings the app along; we look at the run alone
    TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
    TaskIdentity.node_id = given.context.node_id
    return run_from_proto(given.run)


def _heartbeat(client: RuntimeHttpClient, over: threading.Event) -> Callable[[], bool]:
    """Return what says that this task lives; False is tried again."""

    def send() -> bool:
        try:
            lives = client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
        except httpx.HTTPStatusError as error:
            lives = not error.response.is_client_error
            if lives:
                return False
        except (httpx.HTTPError, ValueError):
            return False
        if not lives:
            over.set()
        return True

    return send


def _runtime(loopback: Loopback, credential: ProtobufClientInterceptor) -> RuntimeHttpClient:
    version = RuntimeVersionHttpInterceptor(component_name="flwr-serverapp")
    return loopback.connect(RuntimeHttpClient, [version, credential])
