"""``fedrec simulate``, end to end: prepare, federate, compare with what else could be done, report."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from clients.app import app as client_app
from fedrec.agreement import FILE as AGREEMENT_FILE
from fedrec.agreement import Agreement, read_agreement, write_agreement
from fedrec.code import code_digest
from fedrec.config import Config
from fedrec.errors import ConfigError, FedrecError, PrivacyError
from fedrec.privacy.plan import PrivacyPlan
from fedrec.report.progress import Progress
from fedrec.run_config import load_run_config, write_run_config
from fedrec.runfolder import RunFolder, read_events, write_json, write_text
from fedrec.workspace import copy_workspace, make_keys, open_budgets, policy_of
from server.app import build_app
from server.job import Job, job_of_run
from server.strategy import RoundRecord, ServerState
from server.telling import round_text
from simulations.compare import REFERENCE, Results, measure_rows
from simulations.engines import check_ray, run_local, run_ray
from simulations.prepare import MANIFEST, People, prepare, read_people
from simulations.ray_cluster import check_cluster
from simulations.resident_app import resident_app
from simulations.summary import report_context, summarise
from simulations.workers import Workers, worker_count

TIMING = "timing.json"


def simulate(
    config: Config,
    *,
    out: Path,
    resume: bool,
    prepare_only: bool,
    progress: Progress,
    ray_address: str | None = None,
) -> dict | None:
    """Run a whole federation in this process (or on Ray) and write its run folder.

    Args:
        config: all settings; with ``resume`` they must equal those of the run.
        out: the run folder.
        resume: go on where an earlier process stopped; each round happens once.
        prepare_only: stop before the first round, so that another engine can run the folder.
        progress: where a person watches.
        ray_address: ``HOST:PORT`` of the Ray cluster for the engine ``ray``; when absent Ray starts on this machine.

    Returns:
        The content of ``summary.json``, or None with ``prepare_only``.

    Raises:
        FedrecError: bad data, a bad setting, a folder in use, a damaged checkpoint, or a refusal on privacy grounds.
    """
    with open_run(config, out, resume=resume) as folder:
        with ExitStack() as started:
            # Before everything else: they import while the data are read and the base is made.
            workers = None if prepare_only else started.enter_context(local_workers(config))
            with _no_ruins(folder, is_new=not resume):
                if ray_address is not None and not prepare_only:
                    check_ray()
                    check_cluster(ray_address, run=folder.path, workers=max(1, config.federation.workers))
                with progress.stage("reading and splitting people", total=1) as stage:
                    people = read_people(config, manifest=folder.path / MANIFEST)
                    stage.advance(text=f"{len(people.split.train)} people, {len(people.catalogue)} items")
                agreement = _prepared(config, folder, people, progress)
                job = job_of_run(folder, config)  # refuses here what only shows once base, adapter and plan meet
                check_code(folder, agreement)
            if prepare_only:
                return None
            where = partial(federate, config, progress=progress, workers=workers, ray_address=ray_address)
            state = where(job, agreement, title="federation")
            bare = _reference(config, folder, agreement, where) if config.compare else None
        results = measure_rows(config, folder.path, people, agreement, state, unprotected=bare, progress=progress)
        return _write_results(config, folder, people, agreement, state, results)


@contextmanager
def local_workers(config: Config) -> Iterator[Workers | None]:
    """Start the worker processes of the local engine; None where this process does all of it."""
    count = worker_count(config)
    if config.federation.engine != "local" or count == 1:
        yield None
    else:
        with Workers(count, app=f"{resident_app.__module__}:{resident_app.__name__}") as workers:
            yield workers


def federate(
    config: Config,
    job: Job,
    agreement: Agreement,
    progress: Progress,
    *,
    title: str,
    workers: Workers | None = None,
    ray_address: str | None = None,
) -> ServerState:
    """Run the rounds that are left, on the configured engine, through Flower's two apps."""
    finished: list[ServerState] = []
    rounds = config.federation.rounds
    with progress.stage(title, total=rounds) as stage:

        def on_round(record: RoundRecord) -> None:
            stage.move_to(record.round_index, text=round_text(record, agreement.plan))

        server_app = build_app(lambda _: job, on_round=on_round, on_finish=finished.append)
        run_config = {"workspace": str(job.folder.path.resolve())}
        clients = job.federation.clients
        if config.federation.engine == "ray":
            actors = worker_count(config)
            run_ray(server_app, client_app, clients=clients, workers=actors, run_config=run_config, address=ray_address)
        else:
            run_local(server_app, resident_app(), clients=clients, run_config=run_config, workers=workers)
        stage.move_to(rounds)
    return finished[0]


def open_run(config: Config, out: Path, *, resume: bool) -> RunFolder:
    """Make the run folder, or open it and hold the settings against those it was made with."""
    if not resume:
        folder = RunFolder.create(out)
        write_run_config(config, folder.config)
        return folder
    folder = RunFolder.open_for_resume(out)
    try:
        if load_run_config(folder.config) != config:
            raise ConfigError(f"{folder.config}: differs from the settings given; resume with the run's own settings")
    except FedrecError:
        folder.close()
        raise
    return folder


@contextmanager
def _no_ruins(folder: RunFolder, *, is_new: bool) -> Iterator[None]:
    """A new run that is refused before its first round leaves no folder in the way of the next try."""
    try:
        yield
    except FedrecError:
        if is_new:
            shutil.rmtree(folder.path)
        raise


def _prepared(config: Config, folder: RunFolder, people: People, progress: Progress) -> Agreement:
    """Prepare the folder, and remember how long that took."""
    started = time.perf_counter()
    agreement = prepare(config, folder, people, progress)
    timing = folder.workspace / TIMING
    if not timing.exists():
        write_json(timing, {"pretrain_s": round(time.perf_counter() - started, 3)})
    return agreement


def check_code(folder: RunFolder, agreement: Agreement) -> None:
    """Refuse at once what every client would refuse in each round that is left: code that its policy does not allow."""
    policy = policy_of(folder.path, agreement.plan)
    is_finished = len(read_events(folder.path, growing=True)) == agreement.plan.rounds
    if policy is not None and not is_finished and code_digest() not in policy.allowed_code:
        raise PrivacyError(
            f"{folder.path / 'policy.toml'}: allowed_code: the code was changed since this run was prepared; "
            "start again with another --out, or go on with the old code"
        )


def _reference(
    config: Config, folder: RunFolder, agreement: Agreement, where: Callable[..., ServerState]
) -> ServerState:
    """Federate once more without noise, in a folder of its own inside the run's."""
    path = folder.path / REFERENCE
    exists = (path / AGREEMENT_FILE).exists()
    if not exists:
        shutil.rmtree(path, ignore_errors=True)  # a crash cut its preparation short; nothing was trained in it
    with RunFolder.open_for_resume(path) if exists else RunFolder.create(path) as inner:
        if not exists:
            write_text(inner.config, folder.config.read_text(encoding="utf-8"))
            copy_workspace(folder.path, inner.path)
            plan = agreement.plan
            bare = replace(
                agreement,
                plan=PrivacyPlan.without_privacy(
                    sampling_rate=plan.sampling_rate,
                    rounds=plan.rounds,
                    local_steps=plan.local_steps,
                    clip_norm=plan.clip_norm,
                    clipping=plan.clipping,
                    expected_people=plan.expected_people,
                    batch_cap=plan.batch_cap,
                    max_people=plan.max_people,
                    releases_statistics=agreement.statistics is not None,
                ),
                metrics=(),
                server_key=make_keys(inner.path),
            )
            open_budgets(inner.path, bare, clients=config.partition.clients)
            write_agreement(bare, inner.path)
        bare = read_agreement(inner.path)
        return where(job_of_run(inner, config), bare, title="reference without noise")


def _write_results(
    config: Config, folder: RunFolder, people: People, agreement: Agreement, state: ServerState, results: Results
) -> dict:
    """Write ``summary.json`` and the report, and return the summary."""
    from fedrec.report.page import build_report  # matplotlib comes with it, and nobody need wait for it at the start

    pretrain_s = json.loads((folder.workspace / TIMING).read_text(encoding="utf-8"))["pretrain_s"]
    summary = summarise(config, folder.path, agreement, state, results, pretrain_s=pretrain_s)
    write_json(folder.summary, summary)
    context = report_context(config, folder.path, people, agreement, state, results)
    build_report(summary, folder.read_events(), context, folder=folder.path)
    return summary
