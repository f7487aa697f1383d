"""One run of the server, from its start or its newest checkpoint to the published adapter."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context
from flwr.serverapp import Grid

from fedrec.config import Config
from fedrec.errors import BudgetSpentError, ConfigError, RunError
from fedrec.privacy.measures import metric_noise_std
from fedrec.privacy.trust import require_local
from fedrec.run_config import load_run_config
from fedrec.runfolder import RunFolder, server_key_path, write_arrays
from fedrec.schema import AdapterSchema, Arrays, flatten, parameters_of, unflatten
from fedrec.signing import SigningKey
from server.admission import norm_bounds
from server.averaging import Averaging
from server.census import Census, census_of
from server.checkpoint import load_latest, save_checkpoint
from server.heads import add_heads, read_heads
from server.measures import Measuring
from server.roster import Roster
from server.rounds import Conduct, Save, measure, run_rounds
from server.signer import Signer
from server.strategy import Federation, RoundRecord, ServerState, initial_state

if TYPE_CHECKING:
    from fedrec.agreement import Agreement
    from fedrec.model.statistics import Counting
    from server.panel import PanelJudge
    from server.statistics import Reading

OnRound = Callable[[RoundRecord], None]


@dataclass(frozen=True, eq=False)
class Job:
    """What the server needs for one run.

    Attributes:
        federation: public constants.
        initial: the base's adapter, by name.
        folder: an open run folder; the checkpoints in it are continued.
        conduct: how the server goes about the rounds.
        heads: file of the newest ledger ends that this server has seen in any run; None, in a simulation, where
            nodes change their numbers from run to run, remembers them within the run alone.
        reading: how what clients counted is read; None where they count nothing.

    Raises:
        ConfigError: the updates are to be weighted, and there is no roster that says how.
    """

    federation: Federation
    initial: Arrays
    folder: RunFolder
    conduct: Conduct
    heads: Path | None = None
    reading: "Reading | None" = None

    def __post_init__(self) -> None:
        if self.federation.averaging.weighted and self.conduct.roster is None:
            raise ConfigError(
                "weights=registered: clients of a simulation are enrolled nowhere; set federation.weights to uniform"
            )


def run_job(grid: Grid, job: Job, *, on_round: OnRound | None = None, until_round: int | None = None) -> ServerState:
    """Run the rounds that are left, each once, and publish the best adapter as ``adapter.safetensors``.

    Args:
        grid: Flower's way to the clients.
        job: what to run and where.
        on_round: told of each round after it is on disk.
        until_round: leave the rounds after this one for another time; None for none.

    Returns:
        The state after the last round that was run.

    Raises:
        RunError: the folder's checkpoints are damaged or another run's, the disk is full, or clients are missing.
        BudgetSpentError: too few clients have budget left; what was reached is published.
    """
    state = _start(job)
    job.folder.rewrite_events(record.to_dict() for record in state.records)
    try:
        state = run_rounds(
            grid,
            job.federation,
            job.conduct,
            state=state,
            save=_saving(job, state, on_round),
            until_round=until_round,
        )
    except BudgetSpentError:
        _publish(job, _start(job))
        raise
    _publish(job, state)
    return state


def _saving(job: Job, start: ServerState, on_round: OnRound | None) -> Save:
    """What makes a round durable, in this order: ledger ends, checkpoint, line. A crash in between repeats the round.

    Only ends that are new go into the file of all runs: another run may have newer ones of the other clients.
    """
    known = dict(start.ledger_heads)

    def save(state: ServerState) -> None:
        if job.heads:
            add_heads(job.heads, dict(state.ledger_heads.items() - known.items()))
            known.update(state.ledger_heads)
        save_checkpoint(job.folder.checkpoints, state, federation=job.federation, signer=job.conduct.signer)
        job.folder.append_event(state.records[-1].to_dict())
        if on_round:
            on_round(state.records[-1])

    return save


def _publish(job: Job, state: ServerState) -> None:
    about = {"run_id": job.federation.run_id, "round": str(state.best_round), "base": job.federation.base_digest}
    adapter = unflatten(state.best, job.federation.schema)
    if state.counts and job.reading:
        from server.statistics import publish_statistics

        publish_statistics(job.folder.statistics, state.counts, job.reading, adapter=adapter, about=about)
    write_arrays(job.folder.adapter, adapter, metadata=about)


def job_of_run(
    folder: RunFolder,
    config: Config,
    *,
    key: Path | None = None,
    roster: Roster | None = None,
    heads: Path | None = None,
) -> Job:
    """Put together the job of a prepared run folder: its agreement, its base, its panel.

    Args:
        folder: open, with ``agreement.json`` and ``base/``.
        config: the run's settings.
        key: file of the server's signing key; the run's own, as in a simulation, when None.
        roster: as of ``Conduct``; with one the clients are real, and the plan's trust must be local.
        heads: as of ``Job``.

    Raises:
        RunError: the folder is not prepared, or damaged, or its server's key is not the agreed one.
        PrivacyError: the agreed plan's noise does not give its epsilon, or needs a sum that nothing here can form.
        ConfigError: more clients a round than there are, or settings of the mean that do not go together.
    """
    # torch comes with these: only where an adapter is built and measured
    from fedrec.agreement import agreed_counting, agreed_ranker, read_agreement
    from fedrec.evaluation.masking import masking_of
    from fedrec.model.adapters import adapter_arrays, schema_of
    from server.panel import load_judge

    agreement = read_agreement(folder.path)
    plan, ranker = agreement.plan, agreed_ranker(agreement, folder.path)
    if roster is not None:
        require_local(plan.trust)
    counting = agreed_counting(agreement, folder.path)
    judge = load_judge(folder.path, agreement, masking=masking_of(config.data))
    return Job(
        federation=_federation(agreement, config, schema_of(ranker), census=_census(agreement, counting)),
        initial=adapter_arrays(ranker),
        folder=folder,
        conduct=Conduct(
            _signer(key or server_key_path(folder.path), agreement),
            judge=judge,
            epsilon_after=lambda rounds: plan.epsilon_after(
                rounds * plan.local_steps,
                metric_releases=agreement.metric_releases_by(rounds),
                statistics=agreement.statistics is not None,
            ),
            timeout_s=config.federation.deadline_s,
            roster=roster,
        ),
        heads=heads,
        reading=reading_of(config, counting, judge) if counting else None,
    )


def _federation(agreement: "Agreement", config: Config, schema: AdapterSchema, *, census: Census | None) -> Federation:
    settings, clients = config.federation, config.partition.clients
    return Federation(
        run_id=agreement.run_id,
        base_digest=agreement.base_digest,
        agreement_digest=agreement.digest(),
        schema=schema,
        bounds=norm_bounds(agreement.plan, parameters_of(schema)),
        clients=clients,
        clients_per_round=config.clients_per_round,
        rounds=settings.rounds,
        min_replies=config.min_replies,
        learning_rate=settings.server_learning_rate,
        warmup_rounds=settings.warmup_rounds,
        ema=settings.ema,
        seed=agreement.seed,
        measuring=_measuring(agreement),
        averaging=Averaging(
            trim=settings.trim if settings.aggregation == "trimmed-mean" else None,
            weighted=settings.weights == "registered",
            noise_std=agreement.plan.server_noise_std,
        ),
        census=census,
        over_selection=settings.over_selection,
        noise_sharers=agreement.plan.noise_sharers,
    )


def _measuring(agreement: "Agreement") -> Measuring | None:
    names = agreement.metrics
    if not names:
        return None
    return Measuring(names, agreement.metrics_every, metric_noise_std(agreement.plan, metrics=len(names)))


def _census(agreement: "Agreement", counting: "Counting | None") -> Census | None:
    return census_of(agreement.plan, counting.schema) if counting else None


def reading_of(config: Config, counting: "Counting", judge: "PanelJudge | None") -> "Reading":
    """As public pairs are read, but for the shrinkage; weighed on the panel unless the settings say how much."""
    from server.statistics import Reading

    settings = config.statistics
    spec = replace(counting.pairs.spec, weight=settings.weight or 0.0, shrinkage=settings.shrinkage)
    weigh = judge.weigh if judge and settings.weight is None else None
    return Reading(counting, settings.threshold, spec, weigh)


def _signer(path: Path, agreement: "Agreement") -> Signer:
    """The agreed key: with another one every client would refuse every instruction."""
    key = SigningKey.load(path)
    if key.public != agreement.server_key:
        raise RunError(f"{path}: not the key that the agreement names; put the run's own key back")
    return Signer(key)


def job_from_workspace(context: Context) -> Job:
    """The job of ``flwr run .``: the run folder that ``workspace`` in the run's configuration names, continued.

    Raises:
        ConfigError: ``workspace`` is not set.
        RunError: the folder is not a prepared run, or in use.
    """
    workspace = context.run_config.get("workspace")
    if not workspace:
        raise ConfigError("workspace is empty: expected a run folder; set it with --run-config 'workspace=\"PATH\"'")
    folder = RunFolder.open_for_resume(Path(str(workspace)))
    try:
        return job_of_run(folder, load_run_config(folder.config))
    except BaseException:
        folder.close()
        raise


def _start(job: Job) -> ServerState:
    """The newest intact checkpoint, or round 0, measured and saved; ledgers end where this server saw them end last."""
    federation, folder = job.federation, job.folder.checkpoints
    state = load_latest(folder, federation=federation, signer=job.conduct.signer)
    if state is None:
        base = flatten(job.initial, federation.schema)
        state = initial_state(job.initial, federation.schema, measures=measure(job.conduct.judge, base, federation))
        save_checkpoint(folder, state, federation=federation, signer=job.conduct.signer)
    return replace(state, ledger_heads={**state.ledger_heads, **(read_heads(job.heads) if job.heads else {})})
