"""Data and settings of a run small enough to make many times: 120 people, 40 items, a ranker of width 8."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import tomli_w
from typer.testing import CliRunner

from fedrec.cli import app

ROOT = Path(__file__).resolve().parents[1]
PEOPLE, ITEMS, EVENTS_EACH = 120, 40, 8
COUNTRIES = ("Austria", "Brazil", "Chad", "Denmark")
COLOURS = ("red", "green", "blue", "white", "black")
THINGS = ("mug", "lamp", "clock", "bag", "tin", "card", "candle", "sign")
FIRST_DAY = 1_300_000_000
DAY = 86_400
# By section, as in a TOML file. Small numbers only; every other setting keeps its default.
SETTINGS: dict = {
    "data": {"min_events": 4},
    "items": {"encoder": "hashing", "dimensions": 16},
    "model": {"width": 8, "layers": 1, "heads": 1, "feed_forward": 16, "history": 6},
    "pretraining": {"epochs": 1},
    # Else public pairs know this catalogue, and what three rounds learn moves no rank.
    "pairs": {"sharpness": 0.3, "weight": 1.0},
    "partition": {"clients": 4, "people_per_client": 10, "panel_fraction": 0.2},
    "federation": {"rounds": 3},
    "local": {"tuning_steps": 1},
    "statistics": {"noise_share": 0.0},  # what so few people's counts would show is a matter of luck
}
# Of a run without noise: of these rounds the sixth is surely better than the base, so an adapter is published.
LEARNING: dict = {"federation.rounds": 12, "federation.server_learning_rate": 0.1}


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    exit_code: int
    stdout: str
    stderr: str


def event_rows(*, people: int = PEOPLE, seed: int = 0) -> list[dict[str, object]]:
    """Everyone walks round the catalogue from a place of their own, a few items forward at a time; a day between."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for person in range(people):
        item = int(rng.integers(ITEMS))
        for event in range(EVENTS_EACH):
            item = (item + 1 + int(rng.integers(3))) % ITEMS
            at = FIRST_DAY + DAY * event + 60 * person
            country = COUNTRIES[person % len(COUNTRIES)]
            rows.append({"user_id": f"p{person:03d}", "item_id": f"i{item:02d}", "timestamp": at, "Country": country})
    return rows


def write_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write rows that all have the columns of the first."""
    names = list(rows[0])
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def catalogue_rows() -> list[dict[str, object]]:
    """Items with titles of two words; neighbours share the second, so text tells something."""
    return [
        {"item_id": f"i{item:02d}", "title": f"{COLOURS[item % 5]} {THINGS[item // 5]}", "price": 1 + item / 4}
        for item in range(ITEMS)
    ]


def write_settings(path: Path, changes: dict | None = None) -> Path:
    """Write ``SETTINGS`` as TOML; ``changes`` are given by dotted name."""
    values = json.loads(json.dumps(SETTINGS))
    for name, value in (changes or {}).items():
        section, _, key = name.rpartition(".")
        (values.setdefault(section, {}) if section else values)[key] = value
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    return path


def fedrec(*arguments: object, home: Path) -> Outcome:
    """Run the command line in this process; caches go below ``home``."""
    with mock.patch.dict(os.environ, {"HOME": str(home)}):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


@dataclass(frozen=True)
class Bench:
    """A folder with the inputs of a tiny run, and the commands that use them."""

    folder: Path

    @classmethod
    def at(cls, folder: Path, changes: dict | None = None) -> "Bench":
        """Write events, catalogue and settings into ``folder``; ``changes`` are settings by dotted name."""
        folder.mkdir(parents=True, exist_ok=True)
        bench = cls(folder)
        write_csv(bench.events, event_rows())
        write_csv(bench.catalogue, catalogue_rows())
        write_settings(bench.config, changes)
        return bench

    @property
    def events(self) -> Path:
        return self.folder / "events.csv"

    @property
    def catalogue(self) -> Path:
        return self.folder / "items.csv"

    @property
    def config(self) -> Path:
        return self.folder / "tiny.toml"

    @property
    def out(self) -> Path:
        return self.folder / "run"

    @property
    def inputs(self) -> list[object]:
        return ["--data", self.events, "--catalogue", self.catalogue, "--config", self.config]

    def simulate(self, *flags: object, out: Path | None = None) -> Outcome:
        """``fedrec simulate`` on the inputs, into ``out`` or the bench's own run folder."""
        return self.run(*self.inputs, *flags, out=out)

    def resume(self, *flags: object, out: Path | None = None) -> Outcome:
        """``fedrec simulate --resume``."""
        return self.run("--resume", *flags, out=out)

    def run(self, *flags: object, out: Path | None = None) -> Outcome:
        """``fedrec simulate`` with nothing but ``--out`` and these flags."""
        return fedrec("simulate", "--out", out or self.out, *flags, home=self.folder)

    def summary(self, out: Path | None = None) -> dict:
        """``summary.json`` of a finished run."""
        return json.loads(((out or self.out) / "summary.json").read_text(encoding="utf-8"))


def read_lines(path: Path) -> list[dict]:
    """Every line of a JSON-lines file; none when it is absent."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def without_clock(path: Path) -> list[dict]:
    """The rounds of a run, less the one field that a clock writes."""
    return [{name: value for name, value in line.items() if name != "seconds"} for line in read_lines(path)]
