"""A catalogue small enough to know by heart."""

from pathlib import Path

import polars as pl

from fedrec.config import parse_config
from fedrec.data.catalogue import Catalogue, catalogue_of
from fedrec.run_config import write_run_config

COLUMNS = ["item_id", "title", "brand", "category", "description"]

ROWS = (
    ("m1", "Red mug", "Aurora", "kitchen", "a mug of stoneware"),
    ("m2", "Blue mug", "Aurora", "kitchen", "a mug of stoneware"),
    ("l1", "Red lamp", "Lumen", "lights", "lights up a desk"),
    ("l2", "Café lights, 12 pieces", "Lumen", "lights", "warm, not red"),
    ("h1", "Wireless headphones", "Sonar", "audio", "with a long battery"),
    ("h2", "Headphone stand", "Sonar", "audio", "of beech"),
    ("t1", "TN-2110 toner", "Brother", "office", "black"),
    ("t2", "TN-2120 toner", "Brother", "office", "black"),
    ("g1", "Straßenkarte Görlitz", "Verlag", "books", "map of the town"),
    ("x1", "", "", "", ""),
)
ITEM = {item_id: index for index, (item_id, *_) in enumerate(ROWS)}


def shop() -> Catalogue:
    """The ten items, with brand, category and description."""
    return catalogue_of(pl.DataFrame(ROWS, COLUMNS, orient="row"))


def settings_of_a_run(folder: Path) -> Path:
    """Write the settings of a run over the shop into a folder, and its items beside them."""
    pl.DataFrame(ROWS, COLUMNS, orient="row").write_csv(folder / "items.csv")
    config = {"data": {"catalogue": str(folder / "items.csv")}, "items": {"encoder": "hashing"}}
    write_run_config(parse_config(config, source="test"), folder / "config.toml")
    return folder


def ids(items: list[int]) -> list[str]:
    """Items by their names."""
    return [ROWS[item][0] for item in items]
