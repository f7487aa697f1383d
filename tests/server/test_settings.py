"""server.toml: where everything is, and every mistake in one line."""

from dataclasses import fields

import pytest

from fedrec.errors import ConfigError
from server.gateway_settings import GatewaySettings
from server.settings import LIMITS, ServerSettings, load_server_settings
from tests.tiny_server import Operator


@pytest.fixture(scope="module")
def operator(tmp_path_factory):
    return Operator.at(tmp_path_factory.mktemp("operator"))


def test_the_least_file_is_enough_and_paths_are_relative_to_it(operator, monkeypatch, tmp_path):
    path = operator.folder / "least.toml"
    path.write_text('keys = "keys"\nstate = "deep/state"\n')
    monkeypatch.chdir(tmp_path)
    settings = load_server_settings(path)
    assert settings == ServerSettings(keys=operator.folder / "keys", state=operator.folder / "deep" / "state")
    assert (settings.host, settings.port, settings.private_port, settings.superlink_port) == (
        "0.0.0.0",
        8443,
        9464,
        9465,
    )
    assert not (operator.folder / "deep").exists()


def test_the_gateway_gets_the_keys_the_ports_and_only_the_limits_that_differ(operator):
    path = operator.folder / "limits.toml"
    path.write_text(
        'keys = "keys"\nstate = "state"\nhost = "127.0.0.1"\nport = 18443\nprivate_port = 19464\nmutual_tls = true\n'
        "[gateway]\nrequests_per_s = 7.5\nburst = 9\n"
    )
    gateway = load_server_settings(path).gateway_settings()
    keys, state = operator.folder / "keys", operator.folder / "state"
    assert gateway == GatewaySettings(
        certificate=keys / "tls.crt",
        key=keys / "tls.key",
        client_ca=keys / "ca.crt",
        upstream="https://127.0.0.1:9465",
        upstream_ca=state / "loopback" / "ca.crt",
        host="127.0.0.1",
        port=18443,
        private_port=19464,
        requests_per_s=7.5,
        burst=9,
    )
    assert isinstance(gateway.burst, int)


def test_every_limit_of_the_gateway_can_be_set_and_nothing_else_of_it():
    decided = {"certificate", "key", "upstream", "upstream_ca", "client_ca", "host", "port", "private_port"}
    assert {field.name for field in fields(GatewaySettings)} - decided == LIMITS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("keys = ", "cannot be read as TOML"),
        ('state = "s"', "keys: Field required"),
        ('keys = "keys"\nstate = "s"\nprot = 1', "prot: Extra inputs are not permitted"),
        ('keys = "keys"\nstate = "s"\nport = 0', "port: Input should be greater than or equal to 1"),
        ('keys = "keys"\nstate = "s"\nport = "https"', "port: Input should be a valid integer"),
        ('keys = "keys"\nstate = "s"\nport = 9464', "expected three different numbers"),
        ('keys = "keys"\nstate = "s"\nhost = ""', "host: String should have at least 1 character"),
        ('keys = "nowhere"\nstate = "s"', "nowhere: no tls.crt there; make it with fedrec keys server"),
        ('keys = "keys"\nstate = "s"\n[gateway]\nburst = -1', "gateway.burst: Input should be greater than 0"),
        ('keys = "keys"\nstate = "s"\n[gateway]\nburst = 1.5', r"gateway\.burst=1.5: expected a whole number"),
        ('keys = "keys"\nstate = "s"\n[gateway]\nhost = 3', "gateway.host: expected one of burst, header_timeout_s"),
    ],
)
def test_a_mistake_is_named_with_its_file(operator, text, words):
    path = operator.folder / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_server_settings(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"server.toml: cannot be read: No such file or directory$"):
        load_server_settings(tmp_path / "server.toml")
