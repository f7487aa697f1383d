"""A Ray cluster that somebody else runs: is it there, does it ask for a token, can each of its nodes do the work?

All of it is asked before a run prepares anything, so that a cluster that will not do is named within seconds.
"""

import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from fedrec.code import code_digest
from fedrec.errors import ConfigError, FedrecError, RunError
from fedrec.paths import PACKAGE, app_dir
from fedrec.quiet import SETTINGS, silence

DOOR_S = 5.0  # for the cluster's head to answer
NODES_S = 60.0  # for each node to start a process and read one file
FREE_S = 10.0  # for Ray to notice that the last program has gone
_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"  # what Ray itself asks first


class Sight(NamedTuple):
    """Whether one node finds our mark and may write beside it, and which fedrec it runs."""

    finds_mark: bool
    may_write: bool
    code: str


def check_cluster(address: str, *, run: Path, workers: int) -> None:
    """Refuse a cluster that would fail later, or that lets anybody in.

    Args:
        address: ``HOST:PORT`` of the cluster's head.
        run: the run folder, which each node must find at the same path.
        workers: CPUs it must have at least, >= 1.

    Raises:
        ConfigError: not an address, no token, or Ray's authentication is switched off here.
        RunError: nobody listens, the token is wrong, the cluster asks for none, too few CPUs are there or free, or a
            node cannot run this fedrec or does not see the run folder.
    """
    if os.environ.get("RAY_USE_TLS", "0") in ("0", "false"):  # else both ends show certificates, and Ray checks them
        check_door(address, ray_token())
    with connected(address) as ray:
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        cpus = sum(int(node["Resources"]["CPU"]) for node in nodes)
        if cpus < workers:
            raise _error(address, f"has {cpus} CPUs and federation.workers asks for {workers}; add nodes, or ask less")
        _check_free(ray, address, cpus)
        with marked(run) as mark:
            _check_sights(ray, address, nodes, mark)


def ray_token() -> str:
    """The token of the cluster, from where Ray 2.55 itself looks for it.

    Raises:
        ConfigError: there is none, or ``RAY_AUTH_MODE`` says that none is used.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode != "token":
        raise ConfigError(f"RAY_AUTH_MODE={mode}: expected token; without one anybody on the network can run code")
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not token:
        with suppress(OSError, UnicodeDecodeError):
            token = path.read_text(encoding="utf-8").strip()
    if not token:
        raise ConfigError(
            f"--ray-address: no token in RAY_AUTH_TOKEN or {path}; set RAY_AUTH_TOKEN_PATH to the file of the cluster"
        )
    return token


def check_door(address: str, token: str) -> None:
    """Knock with the token and without it: the first must be let in, the second must not.

    Raises:
        ConfigError: not ``HOST:PORT``.
        RunError: nobody answers within five seconds, the token is wrong, or none is needed.
    """
    import grpc  # Flower's and Ray's own transport

    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise ConfigError(f"--ray-address {address}: expected HOST:PORT, as `ray start --head` prints it")
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        answer = _knock(channel, metadata=(("authorization", f"Bearer {token}"),))
        if answer == grpc.StatusCode.UNAUTHENTICATED:
            raise _error(address, "refuses the token; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's own")
        if answer != grpc.StatusCode.OK:
            raise _error(address, f"no Ray answers there ({answer.name.lower()}); start it with `ray start --head`")
        if _knock(channel) == grpc.StatusCode.OK:
            raise _error(address, "lets anybody in without a token; start each node with RAY_AUTH_MODE=token")


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Join the cluster, hand over the ``ray`` module, and leave.

    Workers find this fedrec's own folders, should the node have them, and phone home no more than we do.
    """
    silence()
    os.environ["RAY_AUTH_MODE"] = "token"
    import ray  # after the environment, which it reads when imported

    places = [str(app_dir()), str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        ray.init(
            address=address,
            runtime_env={"env_vars": SETTINGS | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(places))}},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:
        raise _error(address, f"cannot be joined: {_line(error)}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def look(mark: str) -> Sight:
    """What this machine finds at the path of a file that another has just made."""
    return Sight(os.path.exists(mark), os.access(os.path.dirname(mark), os.W_OK), code_digest())


@contextmanager
def marked(run: Path) -> Iterator[str]:
    """Leave an empty file of a name nobody can guess in the run folder, so that only this very folder has it."""
    mark = run.resolve() / f".seen-{secrets.token_hex(8)}"
    mark.touch()
    try:
        yield str(mark)
    finally:
        mark.unlink()


def _knock(channel: Any, metadata: Any = None) -> Any:
    """The gRPC status of asking whether the head is alive."""
    import grpc

    ask = channel.unary_unary(_ALIVE, request_serializer=bytes, response_deserializer=bytes)
    try:
        ask(b"", timeout=DOOR_S, metadata=metadata)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def _check_free(ray: Any, address: str, cpus: int) -> None:
    """Flower starts an actor on every CPU; one that has to wait for its CPU would hold up a round for ever."""
    deadline = time.monotonic() + FREE_S
    while (free := int(ray.available_resources().get("CPU", 0))) < cpus:
        if time.monotonic() > deadline:
            raise _error(address, f"{cpus - free} of {cpus} CPUs are in use; wait for the other programs, or end them")
        time.sleep(0.2)


def _check_sights(ray: Any, address: str, nodes: list[dict[str, Any]], mark: str) -> None:
    """Let each node look for the mark, all at once, and hold its fedrec against ours."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(look)
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    asked = [task.options(scheduling_strategy=strategy).remote(mark) for strategy in there]
    deadline = time.monotonic() + NODES_S
    for node, reference in zip(nodes, asked, strict=True):
        name = f"node {node['NodeManagerAddress']}"
        try:
            sight = ray.get(reference, timeout=max(0.1, deadline - time.monotonic()))
        except Exception as error:
            reason = f"{name} cannot run fedrec: {_line(error)}; install the same fedrec on each node"
            raise _error(address, reason) from None
        if not (sight.finds_mark and sight.may_write):
            folder = Path(mark).parent
            raise _error(address, f"{name} cannot read and write {folder}; put --out on a folder that all nodes share")
        if sight.code != code_digest():
            raise _error(address, f"{name} runs another fedrec than this machine; install the same one on each node")


def _error(address: str, reason: str) -> FedrecError:
    return RunError(f"--ray-address {address}: {reason}")


def _line(error: BaseException) -> str:
    """The last line of an error, which is where Ray puts a remote one's own text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
