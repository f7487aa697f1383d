"""fedrec as ``fedrec simulate`` runs it: server app, client app, messages, ledgers, policies, checkpoints."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.peers.pace import Pace
from benchmarks.peers.work import Regime, adapted_ranker, base_ranker, checksum_of, config_of, made_up_people
from fedrec.agreeing import make_agreement, make_plan
from fedrec.agreement import Agreement, write_agreement
from fedrec.config import Config
from fedrec.model.adapters import adapter_arrays
from fedrec.model.base import base_digest, save_base
from fedrec.quiet import silence
from fedrec.runfolder import RunFolder
from fedrec.schema import parameters_of
from fedrec.workspace import make_keys, open_budgets, write_workspace

if TYPE_CHECKING:
    from server.job import Job
    from server.strategy import ServerState


def run(regime: Regime, pace: Pace, *, workers: int, engine: str = "local", private: bool = False) -> dict:
    """Prepare a run folder and run its rounds; with ``private`` there are policies and noise, and no checksum."""
    silence()
    from server.job import job_of_run
    from simulations import experiment

    config = config_of(regime, rounds=pace.total, engine=engine, workers=workers, private=private)
    with (
        tempfile.TemporaryDirectory(prefix="fedrec-bench-") as place,
        experiment.open_run(config, Path(place) / "run", resume=False) as folder,
        experiment.local_workers(config) as helpers,
    ):
        agreement = prepare(config, folder, regime)
        job = replace(job_of_run(folder, config), initial=adapter_arrays(adapted_ranker(regime)))
        paced = _Paced(pace, job)
        state = experiment.federate(config, job, agreement, paced, title=regime.name, workers=helpers)
        up = state.records[-1].bytes_up / state.records[-1].asked
    down = 4 * parameters_of(job.federation.schema)  # the header's few hundred bytes are left out
    return {"checksum": None if private else paced.checksum, "bytes": round(up + down)}


def prepare(config: Config, folder: RunFolder, regime: Regime) -> Agreement:
    """What ``simulations.prepare`` does, for the made-up people and a base of random weights."""
    save_base(base_ranker(regime), folder.base)
    each = np.arange(regime.clients * regime.people).reshape(regime.clients, regime.people)
    write_workspace(folder.path, made_up_people(regime), list(each))
    agreement = make_agreement(
        config,
        make_plan(config, people_per_client=regime.people, is_simulated=True),
        run_id=f"bench-{regime.name}",
        base_digest=base_digest(folder.base),
        items=regime.items,
        server_key=make_keys(folder.path),
    )
    open_budgets(folder.path, agreement, clients=regime.clients)
    write_agreement(agreement, folder.path)
    return agreement


class _Paced:
    """Stands where a person would watch the progress: after each round it is the pace's turn."""

    def __init__(self, pace: Pace, job: "Job") -> None:
        self._pace, self._job, self._rounds = pace, job, 0
        self.checksum: float | None = None

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator["_Paced"]:
        del name, total
        yield self

    def move_to(self, done: int, *, text: str = "") -> None:
        del text
        if done > self._rounds:  # at the very end the stage is moved to where it is
            self._rounds = done
            if done == 1:
                self.checksum = checksum_of(self._saved().adam)
            self._pace.after_round()

    def _saved(self) -> "ServerState":
        """What the server has written down of the round."""
        from server.checkpoint import load_latest

        job = self._job
        state = load_latest(job.folder.checkpoints, federation=job.federation, signer=job.conduct.signer)
        assert state is not None
        return state
