"""Flower's own SuperLink behind the gateway, and Flower's own client in front of it."""

import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.control_pb2 import RegisterNodeRequest, StartRunRequest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, RegisterNodeFleetRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedrec.quiet import SETTINGS
from tests.tiny_gateway import Authority, eventually, running_gateway

SUPERLINK = Path(sys.executable).with_name("flower-superlink")


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "ours")


@pytest.fixture
def superlink(authority, tmp_path):
    """The address of a SuperLink on loopback that authenticates nodes, which it does with TLS alone."""
    certificate, key = authority.issue("superlink")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    called = [SUPERLINK, "--host", "127.0.0.1", "--port", str(port), "--enable-supernode-auth"]
    called += ["--ssl-certfile", certificate, "--ssl-keyfile", key, "--ssl-ca-certfile", authority.certificate]
    called += ["--isolation", "process", "--disable-runtime-dependency-installation"]
    environment = {**os.environ, **SETTINGS, "FLWR_HOME": str(tmp_path / "flwr")}
    log = (tmp_path / "superlink.log").open("w")
    with log, subprocess.Popen(called, stdout=log, stderr=log, env=environment) as process:
        try:
            assert eventually(lambda: is_up(port, authority), within_s=60), (tmp_path / "superlink.log").read_text()
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def is_up(port, authority):
    try:
        tls = ssl.create_default_context(cafile=authority.certificate)
        return httpx.get(f"https://127.0.0.1:{port}/health", verify=tls, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.mark.slow
def test_a_registered_node_joins_through_the_gateway_and_nobody_reaches_the_control_api(authority, superlink):
    private = ec.generate_private_key(ec.SECP384R1())
    public = public_key_to_bytes(private.public_key())
    roots = authority.certificate.read_bytes()

    def fleet(address, key=private):
        signed = [NodeAuthHttpInterceptor(key, key.public_key())]
        return FleetHttpClient.from_server_address(address, False, roots, interceptors=signed)

    with ControlHttpClient.from_server_address(superlink, False, roots, interceptors=[]) as direct:
        registered = direct.RegisterNode(RegisterNodeRequest(public_key=public)).node_id
    with running_gateway(authority, f"https://{superlink}", upstream_ca=authority.certificate) as gateway:
        address = f"127.0.0.1:{gateway.public}"
        with fleet(address) as node:
            activated = node.ActivateNode(ActivateNodeRequest(public_key=public, heartbeat_interval=30)).node_id
            assert activated == registered
            beat = SendNodeHeartbeatRequest(node=Node(node_id=activated), heartbeat_interval=30)
            assert node.SendNodeHeartbeat(beat).success
            assert not node.PullMessages(PullMessagesRequest(node=Node(node_id=activated))).messages_list
            with pytest.raises(httpx.HTTPStatusError, match="'403 Forbidden'"):
                node.RegisterNode(RegisterNodeFleetRequest(public_key=public))
        stranger = ec.generate_private_key(ec.SECP384R1())
        own = public_key_to_bytes(stranger.public_key())
        with fleet(address, stranger) as node, pytest.raises(httpx.HTTPStatusError) as refused:
            node.ActivateNode(ActivateNodeRequest(public_key=own, heartbeat_interval=30))
        assert refused.value.response.is_client_error  # SuperLink's own word, which the node needs to see
        assert refused.value.response.json()["code"]
        control = ControlHttpClient.from_server_address(address, False, roots, interceptors=[])
        with control, pytest.raises(httpx.HTTPStatusError) as refused:
            control.StartRun(StartRunRequest())
        assert (refused.value.response.status_code, refused.value.response.text) == (403, "not published")
