"""A run's own ``config.toml``: every setting, written down when the run began."""

from pathlib import Path

import tomli_w

from fedrec.config import Config, parse_config, read_toml
from fedrec.errors import RunError
from fedrec.runfolder import write_text

LAST = ("federation", "workers")  # what ``write_run_config`` writes last, in every version: keep it there


def write_run_config(config: Config, path: Path) -> None:
    """Write all settings, also those that have their default.

    Raises:
        RunError: the disk refuses.
    """
    write_text(path, tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))


def load_run_config(path: Path) -> Config:
    """Read what ``write_run_config`` wrote, to its end: of a file that was cut short, the rest would be defaults.

    Raises:
        ConfigError: as ``load_config``.
        RunError: the end is missing.
    """
    values = read_toml(path)
    section, setting = LAST
    is_whole = setting in values.get(section, {}) and path.read_bytes().endswith(b"\n")
    config = parse_config(values, source=str(path))
    if not is_whole:
        raise RunError(
            f"{path}: cut short: it does not end with {section}.{setting}; put the run's own config.toml back"
        )
    return config
