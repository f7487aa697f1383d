"""A Ray cluster is asked for everything a run will need of it before the run begins, and both its nodes work."""

import contextlib
import json
import socket
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedrec.code import code_digest
from fedrec.errors import ConfigError, RunError
from server.app import build_app
from simulations.engines import run_local
from simulations.ray_cluster import check_door, look, marked, ray_token
from tests.ray_nodes import TOKEN, Cluster, run_python, two_nodes
from tests.tiny_federation import client_app, job
from tests.tiny_run import Bench, Outcome


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An operator who has told nobody a token; the home folder."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_token_comes_from_the_variable_then_the_named_file_then_home(
    no_token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (no_token / ".ray").mkdir()
    (no_token / ".ray" / "auth_token").write_text("from home\n")
    assert ray_token() == "from home"
    (no_token / "named").write_text("from file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(no_token / "named"))
    assert ray_token() == "from file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "from variable")
    assert ray_token() == "from variable"


def test_without_a_token_no_cluster_is_asked(no_token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no token in RAY_AUTH_TOKEN or .*/\.ray/auth_token; set RAY_AUTH_TOKEN_"):
        ray_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigError, match=r"RAY_AUTH_MODE=disabled: expected token; without one anybody"):
        ray_token()


@contextlib.contextmanager
def door(*, token: str | None) -> Iterator[str]:
    """A gRPC server that answers as the head of a Ray cluster does; without ``token`` it lets anybody in."""
    import grpc

    class Head(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            if token is not None and ("authorization", f"Bearer {token}") not in details.invocation_metadata:
                return grpc.unary_unary_rpc_method_handler(
                    lambda _, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
                )
            is_known = details.method == "/ray.rpc.NodeInfoGcsService/CheckAlive"
            return grpc.unary_unary_rpc_method_handler(lambda _, context: b"") if is_known else None

    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[Head()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_cluster_with_our_token_is_let_pass() -> None:
    with door(token=TOKEN) as address:
        check_door(address, TOKEN)


def test_cluster_with_another_token_or_none_at_all_is_refused() -> None:
    with door(token=TOKEN) as address, pytest.raises(RunError, match=rf"--ray-address {address}: refuses the token"):
        check_door(address, "another")
    with door(token=None) as address, pytest.raises(RunError, match="lets anybody in without a token; start each"):
        check_door(address, TOKEN)


def test_address_where_nobody_listens_or_that_is_none_is_refused() -> None:
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RunError, match=rf"--ray-address {address}: no Ray answers there \(unavailable\); start it"):
            check_door(address, TOKEN)
    for wrong in ("auto", "ray://here:10001", "10.0.0.1", "10.0.0.1:", "10.0.0.1:80x"):
        with pytest.raises(ConfigError, match=r"expected HOST:PORT, as `ray start --head` prints it"):
            check_door(wrong, TOKEN)


def test_a_node_finds_the_mark_only_while_it_is_there_and_only_in_this_folder(tmp_path: Path) -> None:
    with marked(tmp_path) as mark:
        assert look(mark) == (True, True, code_digest())
        assert not look(str(tmp_path / "another" / Path(mark).name)).finds_mark
    assert not look(mark).finds_mark
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two real nodes of one CPU each."""
    pytest.importorskip("ray", exc_type=ImportError)
    with two_nodes(tmp_path_factory.mktemp("home")) as nodes:
        yield nodes


PROGRAM = """
import json, sys, time
from pathlib import Path
import simulations.ray_cluster as ray_cluster
from clients.app import build_app as build_client_app
from fedrec.errors import RunError
from server.app import build_app
from simulations.engines import run_ray
from tests.tiny_federation import TinyMerchant, job

address, folder = sys.argv[1], Path(sys.argv[2])
(folder / "nodes").mkdir()
workers, said = 3, {}

class Holder:  # another program's, which ends when that program leaves
    def here(self):
        return True

with ray_cluster.connected(address) as ray:
    while len([node for node in ray.nodes() if node["Alive"]]) < 2:
        time.sleep(0.2)
    holder = ray.remote(num_cpus=1)(Holder).remote()
    ray.get(holder.here.remote())
    ray_cluster.FREE_S, kept = 1.0, ray_cluster.FREE_S
    try:
        ray_cluster._check_free(ray, address, 2)
    except RunError as error:
        said["busy"] = str(error)
    ray_cluster.FREE_S = kept

def refusal(**attributes):
    kept = {name: getattr(ray_cluster, name) for name in attributes}
    vars(ray_cluster).update(attributes)
    started = time.monotonic()
    try:
        ray_cluster.check_cluster(address, run=folder, workers=workers)
        return "none"
    except RunError as error:
        return str(error)
    finally:
        assert time.monotonic() - started < 60, "quickly"
        vars(ray_cluster).update(kept)

class elsewhere:  # a folder that only this machine has
    def __init__(self, run): pass
    def __enter__(self): return "/nowhere/at/all/mark"
    def __exit__(self, *error): pass

said["few"] = refusal()
workers = 2
said["unseen"] = refusal(marked=elsewhere)
said["code"] = refusal(code_digest=lambda: "another")
said["fine"] = refusal()

def merchant_of(context):
    import ray
    partition = int(context.node_config["partition-id"])
    node = ray.get_runtime_context().get_node_id()
    with (folder / "nodes" / node).open("a") as log:
        log.write(f"{partition}\\n")
    return TinyMerchant(partition)

run_ray(build_app(lambda context: job(folder / "run")), build_client_app(merchant_of),
        clients=5, workers=2, address=address)
print(json.dumps(said))
"""


@pytest.mark.slow
def test_both_nodes_work_and_what_would_fail_later_is_refused_first(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="refuses the token"):
        check_door(cluster.address, "another")
    run_local(build_app(lambda context: job(tmp_path / "local")), client_app(), clients=5)
    done = run_python(cluster, "-c", PROGRAM, cluster.address, tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.pop("fine") == "none"
    expected = {
        "few": "has 2 CPUs and federation.workers asks for 3; add nodes, or ask less",
        "busy": "1 of 2 CPUs are in use; wait for the other programs, or end them",
        "unseen": "cannot read and write /nowhere/at/all; put --out on a folder that all nodes share",
        "code": "runs another fedrec than this machine; install the same one on each node",
    }
    for name, text in expected.items():
        assert said[name].startswith(f"--ray-address {cluster.address}: "), said[name]
        assert said[name].endswith(text), said[name]
    logs = [log.read_text().split() for log in (tmp_path / "nodes").iterdir()]
    assert len(logs) == 2, "clients ran on both nodes"
    assert sorted(partition for log in logs for partition in log) == sorted("01234" * 8)
    for name, values in load_file(tmp_path / "local" / "adapter.safetensors").items():
        published = load_file(tmp_path / "run" / "adapter.safetensors")[name]
        np.testing.assert_allclose(published, values, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_command_line_runs_on_the_cluster_of_the_environment(
    cluster: Cluster, bare_run: tuple[Bench, Outcome], tmp_path: Path
) -> None:
    local, _ = bare_run
    bench = Bench.at(tmp_path, {"federation.workers": 1})  # the second node may still be joining
    command = ["-c", "from fedrec.cli import main; main()", "simulate", *bench.inputs, "--out", bench.out, "--no-dp"]
    done = run_python(cluster, *command, "--engine", "ray", RAY_ADDRESS=cluster.address)
    assert done.returncode == 0, done.stderr
    for name, values in load_file(local.out / "adapter.safetensors").items():
        published = load_file(bench.out / "adapter.safetensors")[name]
        np.testing.assert_allclose(published, values, atol=1e-6, rtol=0)
    assert cluster.address not in (bench.out / "config.toml").read_text()


def test_address_of_a_cluster_needs_the_engine_that_uses_it(tmp_path: Path) -> None:
    outcome = Bench.at(tmp_path).simulate("--ray-address", "10.0.0.1:6379")
    assert outcome.exit_code == 2
    assert "--ray-address 10.0.0.1:6379: this run's engine is local; add --engine ray" in outcome.stderr
