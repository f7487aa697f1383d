"""The deployment kit is true: settings load and are complete, commands exist, units and images are tight."""

import configparser
import re
import shlex
import shutil
import subprocess
import tomllib
from dataclasses import fields

import pytest
import typer

from clients.settings import ClientSettings, load_client_settings
from fedrec.cli import app
from fedrec.keyfiles import make_authority, make_server
from server.gateway_settings import GatewaySettings
from server.settings import LIMITS, ServerSettings, load_server_settings
from tests.test_docs import ROOT
from tests.tiny_server import NOW

UNITS = sorted(ROOT.glob("*/deploy/*.service"))
IMAGES = sorted(ROOT.glob("*/deploy/Containerfile"))
GUIDE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


def leaf(words):
    """The command that a line calls, and its options; fails when there is none."""
    command, rest = typer.main.get_command(app), list(words)
    while hasattr(command, "commands"):
        assert rest, f"{words}: expected a command"
        assert rest[0] in command.commands, f"{words}: no such command"
        command = command.commands[rest.pop(0)]
    return {name for parameter in command.params for name in parameter.opts} | {"--help"}, rest


def check_call(line):
    """A call of fedrec, as somebody would type it: command and options must exist."""
    words = shlex.split(line, comments=True)
    words = words[next(i for i, word in enumerate(words) if word.rsplit("/", 1)[-1] == "fedrec") + 1 :]
    options, rest = leaf(words)
    unknown = [word for word in rest if word.startswith("--") and word.split("=")[0] not in options]
    assert not unknown, f"{line}: {unknown}"


def test_there_is_a_unit_an_image_and_a_config_on_each_side():
    assert [path.parent.parent.name for path in UNITS] == ["clients", "server"]
    assert [path.parent.parent.name for path in IMAGES] == ["clients", "server"]


def test_server_toml_names_every_key_and_its_values_are_the_defaults(tmp_path):
    make_authority(tmp_path / "authority", days=500, now=NOW)
    make_server(tmp_path / "keys", tmp_path / "authority", ["127.0.0.1"], days=398, now=NOW)
    text = (ROOT / "server" / "deploy" / "server.toml").read_text(encoding="utf-8")
    (tmp_path / "server.toml").write_text(text)
    loaded = load_server_settings(tmp_path / "server.toml")
    assert set(tomllib.loads(text)) == set(ServerSettings.model_fields)
    defaults = {name: field.default for name, field in ServerSettings.model_fields.items()}
    for name in ("host", "port", "private_port", "superlink_port", "mutual_tls"):
        assert getattr(loaded, name) == defaults[name]
    everything = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    limits = tomllib.loads(everything)["gateway"]
    assert set(limits) == LIMITS
    assert limits == {field.name: field.default for field in fields(GatewaySettings) if field.name in LIMITS}
    (tmp_path / "server.toml").write_text(everything)
    assert load_server_settings(tmp_path / "server.toml").gateway == limits


def test_client_toml_names_every_key_and_loads(tmp_path):
    path = ROOT / "clients" / "deploy" / "client.toml"
    text = path.read_text(encoding="utf-8")
    everything = re.sub(r"^# (\w+ = \")", r"\1", text, flags=re.MULTILINE)
    assert set(tomllib.loads(everything)) == set(ClientSettings.model_fields)
    loaded = load_client_settings(path)
    assert (loaded.name, loaded.not_private) == ("shop-7", False)
    for name in ("federation", "keys", "policy", "ledger"):
        assert getattr(loaded, name) == path.parent / ClientSettings.model_fields[name].default
    from_file = everything.replace('store = "../shop.sqlite"\n', "")
    (tmp_path / "client.toml").write_text(from_file)
    assert set(load_client_settings(tmp_path / "client.toml").columns) == {"user_id", "item_id", "timestamp"}
    (tmp_path / "client.toml").write_text(text.replace('events = "../events.csv"', 'store = "../shop.sqlite"'))
    assert load_client_settings(tmp_path / "client.toml").store == tmp_path / "../shop.sqlite"


def unit(path):
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(path)
    return parser


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_unit_calls_a_command_that_exists_and_ends_it_in_time(path):
    service = unit(path)["Service"]
    check_call(service["ExecStart"])
    assert service["Restart"] == "on-failure"
    assert int(service["RestartSec"]) >= 5
    assert int(service["TimeoutStopSec"]) >= 10
    assert service["UMask"] == "0077"
    assert service["User"] not in ("", "root")
    assert service["ExecStart"].split()[-1].startswith(service["ReadWritePaths"])


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_takes_the_unit_and_finds_it_tight(path, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    text = path.read_text(encoding="utf-8").replace("/opt/fedrec/bin/fedrec", "/bin/true")
    copy = tmp_path / path.name.replace("@", "@shop-7")
    copy.write_text(text)
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True)
    said = [line for line in verified.stderr.splitlines() if path.name.split("@")[0] in line]
    assert (verified.returncode, said) == (0, []), verified.stderr
    tight = ["systemd-analyze", "security", "--offline=true", "--threshold=20", copy]
    judged = subprocess.run(tight, capture_output=True, text=True)
    assert judged.returncode == 0, judged.stdout[-2000:]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.parent.parent.name)
def test_image_is_pinned_runs_as_nobody_in_particular_and_leaves_no_tools(path):
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert re.search(r"^ARG PYTHON=\S+:3\.\d+\.\d+-slim-\w+$", text, flags=re.MULTILINE), "a tag that moves"
    stages = [index for index, line in enumerate(lines) if line.startswith("FROM ")]
    last = lines[stages[-1] :]
    assert [line for line in lines if line.startswith("FROM ")] == ["FROM ${PYTHON} AS build", "FROM ${PYTHON}"]
    assert "USER 10001:10001" in last
    assert any(line.startswith("HEALTHCHECK ") for line in last)
    assert any("pip uninstall" in line for line in last)
    assert not [line for line in lines if "apt" in line.split() or "build-essential" in line]
    assert 'ENTRYPOINT ["/opt/fedrec/bin/fedrec"]' in last
    (command,) = re.findall(r"^CMD (\[.*\])$", text, flags=re.MULTILINE)
    check_call("fedrec " + " ".join(re.findall(r'"([^"]+)"', command)))
    copied = [
        name for line in lines if line.startswith("COPY ") and "--from" not in line for name in line.split()[1:-1]
    ]
    assert all((ROOT / name).exists() for name in copied)
    torch = next(
        line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.strip().startswith('"torch')
    )
    assert re.search(r'"torch[^"]*"', torch)[0] in text, "another torch than pyproject's"


def test_nothing_in_the_kit_is_secret_or_private():
    for path in ROOT.glob("*/deploy/*"):
        text = path.read_text(encoding="utf-8")
        assert "PRIVATE KEY" not in text
        assert not re.search(r"\b(?!0{64})[0-9a-f]{64}\b", text)


def calls_in(text):
    """Every line of a code block that calls fedrec."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    joined = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in joined if re.search(r"(^|\s|/)fedrec\s+[a-z]", line) and not line.startswith("#")]


def test_each_command_in_the_guide_exists():
    calls = [re.sub(r"^\$ ", "", line) for line in calls_in(GUIDE)]
    assert len(calls) >= 15
    for line in calls:
        check_call(line)


@pytest.mark.parametrize("line", ["fedrec no-such", "fedrec server --no-such", "fedrec enrol", "fedrec enrol nobody"])
def test_command_that_does_not_exist_is_noticed(line):
    with pytest.raises(AssertionError):
        check_call(line)
