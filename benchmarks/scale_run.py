"""One measurement of ``benchmarks.scale``: a made-up federation of any size, run by the code that runs real ones.

Who takes part, what they took and the ranker are random: time and memory do not depend on what is learned.
"""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clients.app import app as client_app
from fedrec.agreement import Agreement, agreed_ranker, read_agreement, write_agreement
from fedrec.config import Config, FederationConfig, PartitionConfig
from fedrec.data.histories import Histories
from fedrec.data.splits import Split
from fedrec.evaluation.masking import Masking
from fedrec.evaluation.protocol import evaluate
from fedrec.model.adapters import AdapterSpec
from fedrec.model.base import base_digest, new_ranker, save_base
from fedrec.model.decoder import small_llama
from fedrec.model.ranker import RankerSpec
from fedrec.privacy.plan import PrivacyPlan
from fedrec.runfolder import RunFolder
from fedrec.schema import parameters_of
from fedrec.workspace import client_histories, make_keys, open_budgets, write_workspace
from server.app import build_app
from server.job import job_of_run
from server.strategy import RoundRecord
from simulations.engines import run_local
from simulations.rows import streamed_scorer

EVENTS, HISTORY, WIDTH = 8, 10, 32
FULL_SOFTMAX, NEGATIVES = 4_000, 1_024
SPEC = RankerSpec(
    small_llama(width=WIDTH, layers=1, heads=2, feed_forward=64, history=HISTORY), HISTORY, 4, 0.5, 10.0, 0.0
)


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        clients: registered.
        sampled: asked in a round; ``people`` are ranked instead where it is 0.
        rounds: how many are timed, after one that is not: it opens the model.
        people: at each client.
        items: in the catalogue, (items, dimensions) numbers.
        rank: of the adapter, on all linear layers.
    """

    clients: int
    sampled: int
    rounds: int = 3
    people: int = 1
    items: int = 1_000
    dimensions: int = 64
    rank: int = 1


def prepare(case: Case, folder: Path) -> None:
    """Make the run folder of a federation."""
    with RunFolder.create(folder) as run:
        rng = np.random.default_rng(0)
        save_base(new_ranker(_vectors(rng, case), SPEC, seed=0), run.base)
        everyone = case.clients * case.people
        write_workspace(
            folder, _histories(rng, everyone, items=case.items), np.split(np.arange(everyone), case.clients)
        )
        agreed = Agreement(
            run_id="scale",
            base_digest=base_digest(run.base),
            adapter=AdapterSpec("lora", case.rank, "all-linear", norms=True, gains=False),
            plan=_plan(case),
            local_learning_rate=1.0,
            mask_last=False,
            negatives=NEGATIVES if case.items > FULL_SOFTMAX else None,
            seed=0,
            server_key=make_keys(folder),
        )
        open_budgets(folder, agreed, clients=case.clients)
        write_agreement(agreed, folder)


def measure_rounds(case: Case, folder: Path) -> dict[str, Any]:
    """Run the rounds of a prepared federation, on one thread."""
    torch.set_num_threads(1)
    config = Config(
        partition=PartitionConfig(clients=case.clients),
        federation=FederationConfig(rounds=case.rounds + 1, clients_per_round=case.sampled, min_replies=1.0),
    )
    rounds: list[dict[str, float]] = []
    clock = [time.perf_counter(), time.process_time()]

    def on_round(record: RoundRecord) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        rounds.append({"wall_s": wall - clock[0], "cpu_s": cpu - clock[1], "bytes_up": record.bytes_up, **memory_mb()})
        clock[:] = [time.perf_counter(), time.process_time()]

    with RunFolder.open_for_resume(folder) as run:
        job = job_of_run(run, config)
        server_app = build_app(lambda _: job, on_round=on_round)
        run_local(server_app, client_app, clients=case.clients, run_config={"workspace": str(folder.resolve())})
        numbers = parameters_of(job.federation.schema)
    return {"rounds": rounds, "parameters": numbers, "peak_mb": peak_mb()}


def measure_ranking(case: Case, folder: Path) -> dict[str, Any]:
    """Rank everybody's last event among all items, on one thread."""
    torch.set_num_threads(1)
    ranker, everyone = agreed_ranker(read_agreement(folder), folder), client_histories(folder, 0)
    split = Split(everyone, Histories(np.arange(case.people + 1), everyone.items[EVENTS - 1 :: EVENTS],
                                      everyone.timestamps[EVENTS - 1 :: EVENTS]))  # fmt: skip
    before, wall, cpu = memory_mb(), time.perf_counter(), time.process_time()
    scorer = streamed_scorer(ranker, everyone)
    highest = [before["anonymous_mb"]]
    evaluate(
        scorer,
        split,
        people=np.arange(case.people),
        items=case.items,
        masking=Masking.NONE,
        progress=lambda done, of: highest.append(memory_mb()["anonymous_mb"]),
    )
    taken = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    return taken | {"before_mb": before["anonymous_mb"], "highest_mb": max(highest), "peak_mb": peak_mb()}


def memory_mb() -> dict[str, float]:
    """Memory of this process that is its own, and pages of files that lie in memory as long as there is room."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, mapped = (int(lines[name].split()[0]) / 1e3 for name in ("RssAnon", "RssFile"))
    return {"anonymous_mb": own, "mapped_mb": mapped}


def peak_mb() -> float:
    """Largest resident memory so far, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def machine() -> dict[str, Any]:
    """What was measured on, and how busy it was."""
    return {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2), "torch": torch.__version__}


def _plan(case: Case) -> PrivacyPlan:
    """Epsilon 8 for a person at a client; about 256 people a step where there are more."""
    return PrivacyPlan.calibrate(
        8.0,
        1e-5,
        sampling_rate=min(1.0, 256 / case.people),
        rounds=case.rounds + 1,
        local_steps=1,
        clip_norm=1.0,
        clipping="flat",
        expected_people=case.people,
    )


def _vectors(rng: np.random.Generator, case: Case) -> np.ndarray:
    rows = rng.standard_normal((case.items, case.dimensions), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def _histories(rng: np.random.Generator, people: int, *, items: int) -> Histories:
    taken = rng.integers(0, items, people * EVENTS, dtype=np.int32)
    return Histories(np.arange(people + 1) * EVENTS, taken, np.tile(np.arange(EVENTS), people))
