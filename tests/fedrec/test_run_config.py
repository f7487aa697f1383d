"""A run's settings are read to their end or not at all, wherever the file was cut."""

import pytest

from fedrec.config import Config, parse_config
from fedrec.errors import ConfigError, RunError
from fedrec.run_config import LAST, load_run_config, write_run_config

SETTINGS = {"data": {"events": "/srv/events.csv", "merge_repeats": False}, "federation": {"workers": 12}, "seed": 7}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "config.toml"


@pytest.mark.parametrize("config", [Config(), parse_config(SETTINGS, source="test")])
def test_what_is_written_comes_back(path, config):
    write_run_config(config, path)
    assert load_run_config(path) == config


def test_no_part_of_the_file_passes_for_the_whole(path):
    write_run_config(parse_config(SETTINGS, source="test"), path)
    whole, refusals = path.read_bytes(), []
    assert whole.endswith(f"{LAST[1]} = 12\n".encode())
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises((ConfigError, RunError)) as refused:
            load_run_config(path)
        refusals.append(refused.value)
    ours = [str(error) for error in refusals if isinstance(error, RunError)]
    assert len(ours) > 20, "else every cut was found by TOML alone, and this shows nothing"
    assert set(ours) == {
        f"{path}: cut short: it does not end with federation.workers; put the run's own config.toml back"
    }


def test_the_last_setting_stays_the_last_whatever_is_added(path):
    """Files of older versions end with it too; a new setting goes before it."""
    write_run_config(Config(), path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[-1].startswith(f"{LAST[1]} = ")
    assert [line for line in lines if line.startswith("[")][-1] == f"[{LAST[0]}]"
