"""``fedrec status`` of a server that is down: at once, in words, and with an exit code for a monitor."""

import json
import subprocess
import sys

import pytest

from tests.tiny_server import ROOT, Operator


@pytest.fixture
def operator(tmp_path):
    made = Operator.at(tmp_path)
    made.client("shop-7")
    assert made.enrol("shop-7").exit_code == 0
    return made


def test_what_is_down_and_who_is_enrolled_is_said_and_how_to_start(operator):
    result = operator.fedrec("status")
    assert result.exit_code == 2
    assert "gateway down, SuperLink down" in result.stdout
    assert result.stdout.splitlines()[-1].split()[:3] == ["shop-7", "active", "unknown"]
    start = f"start the server with: fedrec server --config {operator.config}"
    assert result.stderr == f"error: {operator.config}: the gateway and SuperLink down; {start}\n"
    assert json.loads(operator.fedrec("status", "--json").stdout)["superlink"] == "down"


def test_whoever_asks_about_the_server_alone_does_not_wait_for_torch(operator):
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom fedrec.cli import app\n"
        f"CliRunner().invoke(app, ['status', '--config', {str(operator.config)!r}])\n"
        "assert 'server.status' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def test_whoever_reads_an_agreement_does_not_wait_for_peft():
    program = "import sys\nimport fedrec.agreement\nassert not {'peft', 'torch._dynamo'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)
