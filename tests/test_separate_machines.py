"""One server and three merchants on hosts of their own, by the commands that people type."""

import numpy as np
import pytest

from tests.hosts import running_hosts
from tests.separate_machines import SHOPS, final_vectors, prepare, running, shop_rows
from tests.tiny_run import fedrec, write_csv


@pytest.fixture(scope="module")
def hosts():
    with running_hosts(1 + len(SHOPS)) as made:
        yield made


def test_the_adapter_equals_the_simulations_on_the_same_partition(hosts, tmp_path):
    deployment = prepare(tmp_path, hosts)
    with running(deployment):
        said = deployment.fedrec("run", deployment.federation, "--config", deployment.config)
        status = deployment.status()
    assert "5 of 5, 0 void" in said
    assert "NOT PRIVATE" in said
    assert [line["admitted"] for line in deployment.events()] == [3] * 5
    assert status["federation"]["quarantined"] == {}
    rows = shop_rows()
    everyone = write_csv(tmp_path / "everyone.csv", [row for shop in SHOPS for row in rows[shop]])
    inputs = ["--data", everyone, "--catalogue", tmp_path / "items.csv", "--config", tmp_path / "settings.toml"]
    same = ["--base", tmp_path / "base", "--partition", "by-column:shop", "--clients", 3, "--panel-fraction", 0]
    out = tmp_path / "simulation"
    simulated = fedrec("simulate", "--out", out, *inputs, *same, "--people-per-client", 20, "--no-dp", home=tmp_path)
    assert simulated.exit_code == 0, simulated.stderr
    theirs, ours = final_vectors(out), final_vectors(deployment.federation)
    assert np.abs(ours["adapter"]).max() > 1e-3  # it did learn
    np.testing.assert_allclose(ours["adapter"], theirs["adapter"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours["best"], theirs["best"], rtol=0, atol=1e-6)
