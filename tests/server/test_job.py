"""A job starts or continues, writes one line a round, and publishes the best adapter."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from fedrec.agreement import Agreement, read_agreement, write_agreement
from fedrec.config import AdapterConfig, parse_config
from fedrec.errors import ConfigError, RunError
from fedrec.model.adapters import AdapterSpec
from fedrec.model.base import base_digest, new_ranker, save_base
from fedrec.model.decoder import small_llama
from fedrec.model.ranker import RankerSpec
from fedrec.privacy.plan import PrivacyPlan
from fedrec.run_config import write_run_config
from fedrec.runfolder import RunFolder, server_key_path
from fedrec.schema import parameters_of
from fedrec.signing import SigningKey
from server.admission import norm_bounds
from server.app import app, build_app
from server.averaging import Averaging
from server.job import job_from_workspace, job_of_run, run_job
from server.strategy import RoundRecord, ServerState
from simulations.engines import run_local
from simulations.local_grid import LocalGrid
from tests.tiny_federation import BASE, arrays, client_app, context_of, distance, federation, job


def _grid() -> LocalGrid:
    return LocalGrid(client_app(), clients=5)


def test_job_writes_a_line_a_round_and_the_best_adapter(tmp_path: Path) -> None:
    told: list[int] = []
    work = job(tmp_path / "run")
    state = run_job(_grid(), work, on_round=lambda record: told.append(record.round_index))
    assert told == list(range(1, 9))
    assert [line["round"] for line in work.folder.read_events()] == told
    published = load_file(work.folder.adapter)
    assert distance(published)["panel_loss"] == pytest.approx(state.best_loss)
    with safe_open(work.folder.adapter, framework="numpy") as stored:
        assert stored.metadata() == {"run_id": "run-1", "round": str(state.best_round), "base": BASE}


def test_finished_job_run_again_changes_nothing(tmp_path: Path) -> None:
    work = job(tmp_path / "run")
    first = run_job(_grid(), work)
    events = work.folder.events.read_text()
    again = run_job(LocalGrid(client_app(), clients=0), work)
    assert work.folder.events.read_text() == events
    np.testing.assert_array_equal(first.best, again.best)


class StopError(Exception):
    """Thrown to end a run after a round."""


def _stop_after(round_index: int):
    def on_round(record) -> None:
        if record.round_index == round_index:
            raise StopError

    return on_round


def test_events_past_the_checkpoint_are_cut_and_missing_ones_restored(tmp_path: Path) -> None:
    work = job(tmp_path / "run")
    with pytest.raises(StopError):
        run_job(_grid(), work, on_round=_stop_after(4))
    work.folder.events.write_text('{"round": 1}\n{"round": 9}\n{"rou')
    run_job(_grid(), work)
    assert [line["round"] for line in work.folder.read_events()] == list(range(1, 9))


def test_interrupted_job_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    whole, broken = job(tmp_path / "whole"), job(tmp_path / "broken")
    run_job(_grid(), whole)
    for stop in (1, 2, 5):
        with pytest.raises(StopError):
            run_job(_grid(), broken, on_round=_stop_after(stop))
    run_job(_grid(), broken)
    assert broken.folder.adapter.read_bytes() == whole.folder.adapter.read_bytes()


def test_damaged_checkpoint_repeats_the_lost_round_only(tmp_path: Path) -> None:
    whole, broken = job(tmp_path / "whole"), job(tmp_path / "broken")
    run_job(_grid(), whole)
    with pytest.raises(StopError):
        run_job(_grid(), broken, on_round=_stop_after(5))
    (broken.folder.checkpoints / "round-00005.safetensors").write_bytes(b"")
    told: list[int] = []
    run_job(_grid(), broken, on_round=lambda record: told.append(record.round_index))
    assert told == [5, 6, 7, 8]
    assert broken.folder.adapter.read_bytes() == whole.folder.adapter.read_bytes()


def test_base_is_published_when_training_only_hurts(tmp_path: Path) -> None:
    work = job(tmp_path / "run", judge=lambda adapter: {"panel_loss": float(np.abs(adapter["scale"]))})
    state = run_job(_grid(), work)
    assert state.best_round == 0
    np.testing.assert_array_equal(load_file(work.folder.adapter)["scale"], arrays()["scale"])


def test_server_app_runs_the_job_it_is_given(tmp_path: Path) -> None:
    finished: list[ServerState] = []
    told: list[int] = []
    server_app = build_app(
        lambda context: job(tmp_path / str(context.run_config["name"])),
        on_round=lambda record: told.append(record.round_index),
        on_finish=finished.append,
    )
    run_local(server_app, client_app(), clients=5, run_config={"name": "here"})
    assert [state.round_index for state in finished] == [8]
    assert told == list(range(1, 9))
    assert (tmp_path / "here" / "adapter.safetensors").exists()


def test_server_app_may_run_without_listeners(tmp_path: Path) -> None:
    run_local(build_app(lambda context: job(tmp_path / "run")), client_app(), clients=5)


def test_shipped_server_app_needs_a_workspace(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"workspace is empty: expected a run folder; set it with --run-config"):
        run_local(app, client_app(), clients=5)
    with pytest.raises(RunError, match="no run to resume"):
        job_from_workspace(context_of(0, workspace=str(tmp_path)))


def test_folder_that_was_never_prepared_is_refused(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run").close()
    with pytest.raises(ConfigError, match=r"config\.toml: cannot be read: No such file"):
        job_from_workspace(context_of(0, workspace=str(tmp_path / "run")))


def test_a_folder_that_cannot_be_run_is_let_go(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run").close()
    with pytest.raises(ConfigError):
        job_from_workspace(context_of(0, workspace=str(tmp_path / "run")))
    RunFolder.open_for_resume(tmp_path / "run").close()


@pytest.mark.parametrize("closes_folder", [True, False])
def test_app_lets_go_of_the_folder_only_when_it_is_its_own(closes_folder: bool, tmp_path: Path) -> None:
    work = job(tmp_path / "run")
    run_local(build_app(lambda context: work, closes_folder=closes_folder), client_app(), clients=5)
    if not closes_folder:
        with pytest.raises(RunError, match="in use by another process"):
            RunFolder.open_for_resume(tmp_path / "run")
        work.folder.close()
    RunFolder.open_for_resume(tmp_path / "run").close()


def test_another_federation_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    work = job(tmp_path / "run")
    run_job(_grid(), work)
    other = job(work.folder, federation=federation(seed=4))
    with pytest.raises(RunError, match="belongs to another run or other settings"):
        run_job(_grid(), other)


def _prepared(path: Path) -> RunFolder:
    """A run folder with a real, tiny base and agreement, as ``fedrec simulate`` prepares it."""
    folder = RunFolder.create(path)
    config = {"partition": {"clients": 5}, "federation": {"rounds": 4, "clients_per_round": 3}}
    write_run_config(parse_config(config, source="test"), folder.config)
    vectors = np.eye(6, 4, dtype=np.float32)
    decoder = small_llama(width=8, layers=1, heads=2, feed_forward=8, history=6)
    spec = RankerSpec(decoder=decoder, history=6, text_window=2, text_decay=0.8, text_scale=10.0, dropout=0.0)
    save_base(new_ranker(vectors, spec, seed=0), folder.base)
    plan = PrivacyPlan.calibrate(
        8.0, 1e-5, sampling_rate=0.25, rounds=4, local_steps=1, clip_norm=1.0, clipping="flat", expected_people=20
    )
    (path / "keys").mkdir(exist_ok=True)
    key = SigningKey.create(server_key_path(path))
    agreement = Agreement(
        run_id="tiny",
        base_digest=base_digest(folder.base),
        adapter=AdapterSpec(**AdapterConfig(rank=1).model_dump()),
        plan=plan,
        local_learning_rate=1.0,
        mask_last=True,
        negatives=None,
        seed=3,
        server_key=key.public,
    )
    write_agreement(agreement, folder.path)
    return folder


def test_job_of_a_prepared_folder_takes_its_numbers_from_agreement_and_config(tmp_path: Path) -> None:
    _prepared(tmp_path / "run").close()
    work = job_from_workspace(context_of(0, workspace=str(tmp_path / "run")))
    agreement, run = read_agreement(tmp_path / "run"), work.federation
    assert (run.run_id, run.base_digest) == ("tiny", agreement.base_digest)
    assert run.agreement_digest == agreement.digest()
    assert (run.clients, run.clients_per_round, run.rounds, run.seed) == (5, 3, 4, 3)
    assert {spec.name: spec.shape for spec in run.schema} == {name: v.shape for name, v in work.initial.items()}
    assert run.bounds == norm_bounds(agreement.plan, parameters_of(run.schema))
    assert work.conduct.judge is None
    assert work.conduct.epsilon_after is not None
    assert work.conduct.epsilon_after(4) == pytest.approx(8.0, abs=0.01)
    assert work.conduct.signer.key.public == agreement.server_key
    work.folder.close()


def test_server_whose_key_is_not_the_agreed_one_does_not_start(tmp_path: Path) -> None:
    """Every client would refuse whatever it signs."""
    _prepared(tmp_path / "run").close()
    server_key_path(tmp_path / "run").unlink()
    SigningKey.create(server_key_path(tmp_path / "run"))
    with pytest.raises(
        RunError, match=r"server\.key: not the key that the agreement names; put the run's own key back"
    ):
        job_from_workspace(context_of(0, workspace=str(tmp_path / "run")))


def test_settings_of_rounds_reach_the_job(tmp_path: Path) -> None:
    folder = _prepared(tmp_path / "run")
    settings = {"over_selection": 1.5, "deadline_s": 20, "weights": "registered", "clients_per_round": 3, "rounds": 4}
    config = parse_config({"partition": {"clients": 5}, "federation": settings}, source="test")
    heads = tmp_path / "heads.json"
    work = job_of_run(folder, config, roster=dict, heads=heads)
    assert (work.conduct.timeout_s, work.heads, work.conduct.roster) == (20.0, heads, dict)
    assert (work.federation.asked_per_round, work.federation.averaging) == (5, Averaging(weighted=True))
    trimmed = parse_config({"partition": {"clients": 9}, "federation": {"aggregation": "trimmed-mean"}}, source="test")
    assert job_of_run(folder, trimmed).federation.averaging == Averaging(trim=0.1)
    plain = job_of_run(folder, parse_config({"federation": {"trim": 0.3}}, source="test"))
    assert (plain.federation.averaging, plain.heads) == (Averaging(), None)
    assert (plain.conduct.timeout_s, plain.conduct.roster) == (None, None)


def test_registered_weights_without_a_roster_are_refused(tmp_path: Path) -> None:
    folder = _prepared(tmp_path / "run")
    config = parse_config({"federation": {"weights": "registered"}}, source="test")
    with pytest.raises(ConfigError, match="weights=registered: clients of a simulation are enrolled nowhere; set fed"):
        job_of_run(folder, config)


def test_weights_with_a_trimmed_mean_are_refused(tmp_path: Path) -> None:
    folder = _prepared(tmp_path / "run")
    settings = {"weights": "registered", "aggregation": "trimmed-mean"}
    with pytest.raises(ConfigError, match="a trimmed mean has no weights"):
        job_of_run(folder, parse_config({"federation": settings}, source="test"), roster=dict)


def test_rounds_may_be_run_in_parts(tmp_path: Path) -> None:
    whole, parted = job(tmp_path / "whole"), job(tmp_path / "parted")
    run_job(_grid(), whole)
    for until, done in ((3, 3), (3, 3), (5, 5), (99, 8)):
        state = run_job(_grid(), parted, until_round=until)
        assert state.round_index == done
        assert len(parted.folder.read_events()) == done
        assert load_file(parted.folder.adapter).keys() == arrays().keys()
    assert parted.folder.adapter.read_bytes() == whole.folder.adapter.read_bytes()


class Leaving(LocalGrid):
    """Two of five go away."""

    gone = 0

    def get_node_ids(self) -> range:
        return super().get_node_ids()[: 5 - self.gone]


@pytest.mark.parametrize(("min_replies", "rounds"), [(0.6, 8), (0.8, 2)])
def test_before_each_round_a_quorum_must_be_there(min_replies: float, rounds: int, tmp_path: Path) -> None:
    work = job(tmp_path / "run", federation=federation(min_replies=min_replies), join_timeout_s=0.0)
    grid = Leaving(client_app(), clients=5)
    missing = "3 of 4 clients joined within 0 s; start the missing clients, then go on with --resume"

    def leave(record: RoundRecord) -> None:
        grid.gone = 2 if record.round_index >= 2 else 0

    with nullcontext() if rounds == 8 else pytest.raises(RunError, match=missing):
        run_job(grid, work, on_round=leave)
    assert len(work.folder.read_events()) == rounds
    grid.gone = 0
    assert run_job(grid, work).round_index == 8


def test_job_with_more_clients_a_round_than_there_are_is_refused(tmp_path: Path) -> None:
    folder = _prepared(tmp_path / "run")
    config = parse_config({"partition": {"clients": 2}, "federation": {"clients_per_round": 3}}, source="test")
    with pytest.raises(ConfigError, match="clients_per_round=3: expected 1 to 2"):
        job_of_run(folder, config)
