"""The commands end to end: a merchant joins an operator, and no secret is ever printed."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from fedrec.cli import app
from fedrec.keyfiles import make_authority, make_server
from fedrec.privacy.policy import load_policy


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """Every command once, each for people and for programs; what they printed."""
    place = tmp_path_factory.mktemp("keys")
    told = {}
    for form in ((), ("--json",)):
        here = place / ("json" if form else "text")
        commands = {
            "authority": (here / "authority",),
            "server": (here / "server", "--authority", here / "authority", "--host", "fedrec.test", "--host", "::1"),
            "client": (here / "client", "--name", "shop-7", "--certificate-request"),
            "sign": (here / "client" / "tls.csr", "--authority", here / "authority"),
            "show": (here / "client",),
        }
        for name, arguments in commands.items():
            told[here.name, name] = run("keys", name, *arguments, *form)
    return place, told


def test_every_command_succeeds_and_speaks_json_alone(joined):
    _, told = joined
    for (form, name), result in told.items():
        assert (result.exit_code, result.stderr) == (0, ""), (name, result.output)
        if form == "json":
            json.loads(result.stdout)


def test_no_private_key_is_ever_printed(joined):
    place, told = joined
    printed = "".join(result.output for result in told.values())
    secrets = [line for path in place.rglob("*.key") for line in path.read_text().splitlines() if "-----" not in line]
    assert len(secrets) > 20
    assert not [line for line in secrets if line in printed]


def test_printed_server_key_is_the_one_in_the_file_and_a_policy_takes_it(joined, tmp_path):
    place, told = joined
    public = json.loads(told["json", "server"].stdout)["server_key"]
    assert (place / "json" / "server" / "server.pub").read_text() == public + "\n"
    assert run("privacy", "policy", "new", tmp_path / "p.toml", "--epsilon", 3, "--server-key", public).exit_code == 0
    assert load_policy(tmp_path / "p.toml").server_key == public


def test_merchant_and_operator_see_the_same_fingerprint_of_a_request(joined):
    _, told = joined
    asked, signed = (json.loads(told["json", name].stdout) for name in ("client", "sign"))
    assert asked["request_sha256"] == signed["request_sha256"]
    assert signed["name"] == "shop-7"


def test_show_tells_the_same_as_the_commands_that_made_the_keys(joined):
    _, told = joined
    asked, shown = (json.loads(told["json", name].stdout) for name in ("client", "show"))
    files = {one["file"]: one for one in shown["files"]}
    assert (shown["kind"], shown["warnings"], shown["problems"]) == ("client", [], [])
    assert files["node.pub"]["fingerprint"] == asked["node_fingerprint"]
    assert files["reply.pub"]["fingerprint"] == asked["reply_key"]
    assert files["tls.csr"]["fingerprint"] == asked["request_sha256"]
    assert set(files["tls.crt"]) == {"file", "what", "fingerprint", "expires", "days_left"}
    left = datetime.fromisoformat(files["tls.crt"]["expires"]) - datetime.now(UTC)
    assert timedelta(days=397) < left < timedelta(days=398)
    assert "  tls.crt     certificate of shop-7  until " in told["text", "show"].stdout


def test_days_reach_the_certificates(tmp_path):
    run("keys", "authority", tmp_path / "a", "--days", 400)
    run("keys", "server", tmp_path / "s", "--authority", tmp_path / "a", "--host", "a", "--days", 40)
    files = json.loads(run("keys", "show", tmp_path / "s", "--json").stdout)["files"]
    assert {one["file"]: one["days_left"] for one in files if one["expires"]} == {"ca.crt": 399, "tls.crt": 39}


def test_keep_reaches_the_server(joined, tmp_path):
    place, told = joined
    authority, old = place / "json" / "authority", place / "json" / "server"
    new = run("keys", "server", tmp_path / "new", "--authority", authority, "--host", "a", "--keep", old, "--json")
    assert json.loads(new.stdout)["server_key"] == json.loads(told["json", "server"].stdout)["server_key"]


@pytest.mark.parametrize(("ago", "code"), [(370, 0), (399, 2)])
def test_show_warns_before_a_certificate_expires_and_fails_after(tmp_path, ago, code):
    then = datetime.now(UTC) - timedelta(days=ago)
    make_authority(tmp_path / "a", days=1825, now=then)
    make_server(tmp_path / "s", tmp_path / "a", ["fedrec.test"], days=398, now=then)
    shown, told = run("keys", "show", tmp_path / "s"), run("keys", "show", tmp_path / "s", "--json")
    assert (shown.exit_code, told.exit_code) == (code, code)
    ends = f"on {then + timedelta(days=398):%Y-%m-%d}; a new one: fedrec keys server --keep"
    if code:
        assert shown.stderr == told.stderr == f"error: {tmp_path / 's'}: tls.crt: expired {ends}\n"
        assert json.loads(told.stdout)["problems"] == [f"tls.crt: expired {ends}"]
    else:
        assert shown.stdout.splitlines()[-1] == f"warning: tls.crt: expires in 27 days, {ends}"
        assert len(json.loads(told.stdout)["warnings"]) == 1


def test_wrong_inputs_are_one_line_and_exit_code_2(joined, tmp_path):
    authority, csr = joined[0] / "text" / "authority", joined[0] / "text" / "client" / "tls.csr"
    server = ("server", tmp_path / "new", "--authority", authority)
    wrong = {
        ("authority", authority): "authority: not empty; nothing is overwritten: choose another place",
        ("authority", tmp_path / "new", "--days", 0): "days=0: expected 1 to 3650",
        (*server, "--host", "a:443"): "host='a:443': expected a host name or an IP address, without port or wildcard",
        (*server, "--host", "a", "--days", 3000): "days=3000: expected <= 1824, when the authority itself expires",
        ("server", tmp_path / "new", "--authority", tmp_path, "--host", "a"): "ca.key: cannot be read: No such file",
        ("server", tmp_path / "new", "--authority", "gone", "--host", "a"): "gone: no authority here; make one with",
        ("client", tmp_path / "new", "--name", "a b"): "name='a b': expected 1 to 64 letters",
        ("sign", csr, "--authority", authority): "tls.crt: exists; move it away to sign again",
        ("sign", authority / "ca.crt", "--authority", authority): "expected a certificate request (PEM)",
        ("show", tmp_path): "no keys here; expected ca.key, server.key, node.key",
    }
    for arguments, complaint in wrong.items():
        result = run("keys", *arguments)
        assert (result.exit_code, result.stdout) == (2, ""), arguments
        assert result.stderr.startswith("error: ")
        assert complaint in result.stderr
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()
