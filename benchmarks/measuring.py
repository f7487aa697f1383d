"""Fill the cells of one data set and seed: people and base once, then every row that is not there yet."""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.cells import Cell, Federated, measured_cell, read_cell, write_cell
from benchmarks.chosen import EASE, SASREC
from benchmarks.rows import FEDERATIONS, NO_NOISE, POOLED, cells_of
from benchmarks.sasrec import fit_sasrec, sasrec_scorer
from fedrec.agreement import FILE as AGREEMENT_FILE
from fedrec.agreement import Agreement, read_agreement
from fedrec.config import Config, load_config, parse_config
from fedrec.errors import ConfigError, DataError, PrivacyError, RunError
from fedrec.evaluation import baselines
from fedrec.evaluation.masking import masking_of_targets
from fedrec.evaluation.protocol import Evaluation, Scorer
from fedrec.model.making import make_base
from fedrec.report.progress import Progress
from fedrec.runfolder import RunFolder
from server.job import Job, job_of_run
from server.strategy import initial_state
from simulations.compare import measure_rows
from simulations.experiment import check_code, federate, open_run
from simulations.prepare import People, prepare, read_people
from simulations.rows import Table

Found = dict[str, tuple[Evaluation, Federated | None]]


@dataclass(frozen=True)
class Case:
    """What is prepared once.

    Attributes:
        name: folder of its cells below the results, as ``beauty/seed-0``.
        data_set: whose chosen settings the references take.
        config: of everything; a federation changes what ``rows.FEDERATIONS`` says.
    """

    name: str
    data_set: str
    config: Config


def measure_case(case: Case, rows: Sequence[str], folder: Path, *, progress: Progress) -> None:
    """Measure each row that has no cell yet; a ranker that the settings or the data rule out leaves the reason.

    Args:
        rows: of ``rows.ROWS``.
        folder: the results.

    Raises:
        RunError: a cell is damaged or was made with other settings, or another process is at work on the case.
        FedrecError: the people cannot be read, or no base made.
    """
    missing = [row for row in rows if not _is_there(case, row, folder)]
    if not missing:
        return
    with locked(folder / "locks" / case.name.replace("/", "-"), wait=False):
        bench = _Bench(case, folder, progress)
        for row in missing:
            bench.get_ready(row)
            started = time.perf_counter()
            try:
                found = bench.measure(row)
            except (ConfigError, DataError, PrivacyError) as error:
                cell = Cell(settings=_digest(case, row), seconds=0.0, refused=str(error))
                for name in cells_of(row):
                    write_cell(cell_path(folder, case.name, name), cell)
                continue
            seconds = time.perf_counter() - started
            for name, (evaluation, federated) in found.items():
                cell = measured_cell(
                    evaluation,
                    settings=_digest(case, row),
                    seconds=seconds,
                    items=len(bench.people.catalogue),
                    masking=masking_of_targets(case.config.data).value,
                    split=case.config.data.split,
                    federated=federated,
                )
                write_cell(cell_path(folder, case.name, name), cell)


def cell_path(folder: Path, case: str, cell: str) -> Path:
    """Where a cell lies below the results."""
    return folder / case / f"{cell}.json"


def changed(config: Config, changes: dict[str, Any]) -> Config:
    """A configuration with other values, by dotted name; what was left to a default stays so."""
    values = config.model_dump(mode="json", exclude_unset=True)
    for name, value in changes.items():
        section, _, key = name.rpartition(".")
        (values.setdefault(section, {}) if section else values)[key] = value
    return parse_config(values, source="results")


class _Bench:
    """Everything that the rows of a case share."""

    def __init__(self, case: Case, folder: Path, progress: Progress) -> None:
        self._case, self._folder, self._progress = case, folder, progress

    @cached_property
    def people(self) -> People:
        return read_people(self._case.config)

    @cached_property
    def base(self) -> Path:
        """The public base, made once for all cases that differ in their merchants alone."""
        config = self._case.config
        shaped_by = config.model_dump(
            mode="json",
            include={"data", "items", "model", "pretraining", "pairs", "partition", "seed"},
            exclude={"data": {"events", "catalogue"}, "partition": {"clients", "people_per_client"}},
        )
        name = f"{self._case.data_set}-seed{config.seed}-{_sha(shaped_by)}"
        path = (self._folder / "bases" / name).resolve()
        with locked(self._folder / "locks" / name, wait=True):
            if not path.exists():
                unfinished = path.with_name(f"{name}.unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(parents=True)
                train, people = self.people.split.train, self.people
                fit, judge = train.subset(people.panel_fit), train.subset(people.panel_judge)
                make_base(config, people.catalogue, unfinished, fit=fit, judge=judge, progress=self._progress)
                unfinished.rename(path)
        return path

    def get_ready(self, row: str) -> None:
        """Make what the row shares with others, so that its seconds are its own."""
        _ = self.people if row in POOLED else self.base

    def measure(self, row: str) -> Found:
        """The cells of a row."""
        if row in FEDERATIONS:
            return self._federation(row)
        return {row: (self._pooled(row) if row in POOLED else self._prepared(row), None)}

    def _pooled(self, row: str) -> Evaluation:
        scorer = _pooled_scorer(row, self.people, data_set=self._case.data_set, seed=self._case.config.seed)
        people = self.people
        return Table(people, masking_of_targets(self._case.config.data), people.partition.clients).judge(scorer)

    def _prepared(self, row: str) -> Evaluation:
        """A row that no round changes, in the folder of the run without noise."""
        with self._run(NO_NOISE) as (config, folder, agreement, job):
            begun = initial_state(job.initial, job.federation.schema, measures={})
            results = measure_rows(
                *(config, folder.path, self.people, agreement, begun),
                unprotected=begun,
                progress=self._progress,
                only={row},
            )
        return results.rows[row]

    def _federation(self, name: str) -> Found:
        with self._run(name) as (config, folder, agreement, job):
            state = federate(config, job, agreement, self._progress, title=f"{self._case.name} {name}")
            results = measure_rows(
                *(config, folder.path, self.people, agreement, state),
                unprotected=None,
                progress=self._progress,
                only={"shared", "federated"},
            )
        told = Federated(
            statement=agreement.plan.statement(),
            rounds=state.round_index,
            published_round=state.best_round,
            void_rounds=sum(record.void for record in state.records),
            trainable_parameters=results.trainable_parameters,
        )
        return {cell: (results.rows[cell.partition("-")[0]], told) for cell in cells_of(name)}

    @contextmanager
    def _run(self, federation: str) -> Iterator[tuple[Config, RunFolder, Agreement, Job]]:
        """Open a federation's run folder, prepared; what an earlier process left is gone on with where that can be."""
        config = changed(self._case.config, FEDERATIONS[federation] | {"pretraining.base": str(self.base)})
        path = self._folder / "runs" / self._case.name / federation
        is_begun = _can_go_on(path, config)
        if not is_begun:
            shutil.rmtree(path, ignore_errors=True)
        with open_run(config, path, resume=is_begun) as folder:
            agreement = prepare(config, folder, self.people, self._progress)
            yield config, folder, agreement, job_of_run(folder, config)


def _pooled_scorer(row: str, people: People, *, data_set: str, seed: int) -> Scorer:
    train, items = people.split.train, len(people.catalogue)
    if row in ("ease", "sasrec") and data_set not in (EASE if row == "ease" else SASREC):
        raise ConfigError("no settings were chosen for this set")
    if row == "ease":
        chosen = EASE[data_set]
        return baselines.ease(train, items=items, ridge=chosen.ridge, recent=chosen.recent)
    if row == "sasrec":
        return sasrec_scorer(fit_sasrec(train, items=items, settings=SASREC[data_set], seed=seed), train)
    plain = {"popularity": baselines.popularity, "repeat": baselines.repeat, "markov_knn": baselines.markov_knn}
    return plain[row](train, items=items)


def _is_there(case: Case, row: str, folder: Path) -> bool:
    """Whether every cell of a row was measured, with the settings that hold now."""
    paths = [cell_path(folder, case.name, name) for name in cells_of(row)]
    found = [read_cell(path) for path in paths]
    for path, cell in zip(paths, found, strict=True):
        if cell is not None and cell.settings != _digest(case, row):
            raise RunError(f"{path}: measured with other settings; remove it to measure it again")
    return None not in found


def _digest(case: Case, row: str) -> str:
    """Name the settings that shape a row; where files lie is none of them, nor is a default."""
    sections = {"data", "partition", "seed"} if row in POOLED else None
    values = case.config.model_dump(
        mode="json", exclude_defaults=True, include=sections, exclude={"data": {"events", "catalogue"}}
    )
    chosen = {"ease": EASE, "sasrec": SASREC}.get(row, {}).get(case.data_set)
    return _sha([values, repr(chosen), FEDERATIONS.get(row)])


def _sha(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _can_go_on(path: Path, config: Config) -> bool:
    """Whether a run folder was prepared whole, with these settings, by code that its clients still allow."""
    if not (path / AGREEMENT_FILE).exists() or load_config(path / "config.toml") != config:
        return False
    with RunFolder.open_for_resume(path) as folder:
        try:
            check_code(folder, read_agreement(path))
        except PrivacyError:
            return False
    return True


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a lock of the operating system's, which goes with the process however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise RunError(f"{path}: another process is at work on it; wait for it") from None
    try:
        yield
    finally:
        os.close(descriptor)
