import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedrec.agreement import FILE, agreed_ranker, read_agreement, write_agreement
from fedrec.errors import PrivacyError, RunError
from fedrec.model.adapters import adapter_arrays, schema_of
from fedrec.model.base import FILES, base_digest, save_base
from tests.tiny_ranker import HISTORY, ITEMS, adapter_spec, agreement, learned, open_plan, private_plan, scores


@pytest.fixture
def run(tmp_path):
    save_base(learned(), tmp_path / "base")
    write_agreement(agreement(private_plan(), base_digest=base_digest(tmp_path / "base")), tmp_path)
    return tmp_path


def _edit(run, change) -> None:
    values = json.loads((run / FILE).read_text())
    change(values)
    (run / FILE).write_text(json.dumps(values))


@pytest.mark.parametrize(
    "changes", [{}, {"negatives": 7, "mask_last": False}, {"adapter": adapter_spec(kind="ffa-lora")}]
)
@pytest.mark.parametrize("plan", [private_plan(), open_plan()], ids=["private", "open"])
def test_agreement_comes_back_as_it_was_written(run, changes, plan):
    written = agreement(plan, base_digest=base_digest(run / "base"), **changes)
    write_agreement(written, run)
    read = read_agreement(run)
    assert read == written
    assert read.plan.digest() == plan.digest()


@pytest.mark.parametrize("name", FILES)
def test_base_that_was_changed_afterwards_is_refused(run, name):
    content = (run / "base" / name).read_bytes()
    (run / "base" / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(
        RunError, match=r"base: differs from the base that .*agreement.json names; start again with another"
    ):
        read_agreement(run)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.update(epsilon=8.0),
        lambda values: values.pop("mask_last"),
        lambda values: values.pop("server_key"),
        lambda values: values.pop("plan"),
        lambda values: values.pop("adapter"),
        lambda values: values["adapter"].update(alpha=2),
        lambda values: values["adapter"].pop("rank"),
        lambda values: values.update(adapter=None),
    ],
)
def test_unknown_or_missing_key_is_refused(run, change):
    _edit(run, change)
    with pytest.raises(RunError, match=r"agreement.json: not a usable agreement: "):
        read_agreement(run)


@pytest.mark.parametrize(
    ("field", "values", "expected"),
    [
        ("run_id", (5, "a/b", "a\n\x1b[2J", "r" * 129), "a name of letters and digits"),
        ("local_learning_rate", (float("nan"), float("inf"), 0.0, -1.0, "1", True), "a finite number > 0"),
        ("mask_last", ("no", 0, None), "true or false"),
        ("negatives", (-5, 0, 2.5, "7", True), "a whole number >= 1, or none"),
        ("seed", (-1, 10**40, "3", 2**32), "a whole number >= 0 below"),
    ],
)
def test_number_that_training_cannot_use_is_refused_before_anything_is_charged_for_it(run, field, values, expected):
    """Joining would take it, and each round would be charged and then fail."""
    for value in values:
        _edit(run, lambda agreed, value=value: agreed.update({field: value}))
        with pytest.raises(RunError, match=rf"agreement.json: not a usable agreement: {field}: expected {expected}"):
            read_agreement(run)


@pytest.mark.parametrize("change", [{"kind": "dora"}, {"rank": -1}, {"rank": "2"}, {"targets": "x"}, {"norms": 1}])
def test_adapter_of_no_known_make_is_refused(run, change):
    _edit(run, lambda agreed: agreed["adapter"].update(change))
    with pytest.raises(RunError, match=rf"agreement.json: not a usable agreement: {min(change)}: expected "):
        read_agreement(run)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 200_000, None])
def test_file_that_is_missing_or_damaged_is_refused(run, content):
    (run / FILE).unlink()
    if content is not None:
        (run / FILE).write_bytes(content)
    with pytest.raises(RunError, match=r"agreement.json: not a usable agreement: "):
        read_agreement(run)


def test_agreement_without_its_base_is_refused(run):
    (run / "base" / FILES[0]).unlink()
    with pytest.raises(RunError, match="not a usable agreement"):
        read_agreement(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_multiplier": 0.1}, r"noise_multiplier=0.1: gives epsilon .*, expected <= 8.0"),
        ({"epsilon": 1.0}, r"gives epsilon .*, expected <= 1.0"),
        ({"steps": 4000}, r"gives epsilon .*, expected <= 8.0"),
        ({"sampling_rate": 1.0}, r"gives epsilon .*, expected <= 8.0"),
        ({"clip_norm": -1.0}, "clip_norm=-1.0: expected > 0"),
        ({"private": False}, "a plan without privacy: expected no epsilon"),
        ({"clipping": "none"}, "clipping='none': expected flat or auto-s"),
        ({"unit": "event"}, "unit='event': expected 'person at a client'"),
        ({"belief": "me"}, r"unknown keys \['belief'\]"),
        ({"trust": "me"}, "trust='me': expected local, distributed, central"),
    ],
)
def test_weakened_plan_is_a_privacy_error(run, change, message):
    _edit(run, lambda values: values["plan"].update(change))
    with pytest.raises(PrivacyError, match=message):
        read_agreement(run)


@pytest.mark.parametrize("key", ["", "5e" * 31, "5E" * 32, "5e" * 32 + "\n", None, 5])
def test_agreement_without_a_servers_key_is_neither_written_nor_read(run, key):
    said = "server_key: expected the server's public key, 64 lower-case hex digits"
    with pytest.raises(RunError, match=said):
        write_agreement(agreement(server_key=key), run)
    _edit(run, lambda values: values.update(server_key=key))
    with pytest.raises(RunError, match=f"agreement.json: not a usable agreement: {said}"):
        read_agreement(run)


MEASURED = {"metrics": ("ndcg@10", "hr@10"), "metrics_every": 2}


@pytest.fixture
def measured(run):
    """A private agreement whose clients release metrics after rounds 2 and 4 of 4."""
    plan = private_plan(metric_releases=2, metric_noise_multiplier=5.0)
    write_agreement(agreement(plan, base_digest=base_digest(run / "base"), **MEASURED), run)
    return run


def test_metrics_come_back_as_they_were_written_and_say_when_they_are_due(measured):
    agreed = read_agreement(measured)
    assert (agreed.metrics, agreed.metrics_every) == (MEASURED["metrics"], 2)
    assert [index for index in range(1, 9) if agreed.releases_metrics_in(index)] == [2, 4]
    assert [agreed.metric_releases_by(rounds) for rounds in range(5)] == [0, 0, 1, 1, 2]


def test_an_agreement_without_metrics_never_releases_any():
    assert not any(agreement().releases_metrics_in(index) for index in range(1, 5))
    assert agreement().metric_releases_by(4) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ["loss"]}, r"metrics=\['loss'\]: expected different ones of \['ndcg@10', 'hr@10'\]"),
        ({"metrics": ["hr@10", "hr@10"]}, r"metrics=\['hr@10', 'hr@10'\]: expected different ones of"),
        ({"metrics_every": 0}, "metrics_every: expected a whole number >= 1"),
        ({"metrics_every": True}, "metrics_every: expected a whole number >= 1"),
        ({"metrics_every": 1}, "4 releases of metrics in 4 rounds: the plan covers 2"),
        ({"metrics_every": 5}, "0 releases of metrics in 4 rounds: the plan covers 2"),
        ({"metrics": []}, "0 releases of metrics in 4 rounds: the plan covers 2"),
        ({"metrics": None}, "object is not iterable"),
    ],
)
def test_metrics_that_the_plan_does_not_cover_are_refused(measured, change, message):
    _edit(measured, lambda values: values.update(change))
    with pytest.raises(RunError, match=rf"agreement.json: not a usable agreement: .*{message}"):
        read_agreement(measured)


def test_metrics_that_the_plan_does_not_cover_are_never_written(tmp_path):
    with pytest.raises(RunError, match="2 releases of metrics in 4 rounds: the plan covers 0"):
        write_agreement(agreement(private_plan(), **MEASURED), tmp_path)


def test_both_sides_build_the_same_ranker_and_it_scores_as_the_base(run):
    agreed = read_agreement(run)
    server, client = agreed_ranker(agreed, run), agreed_ranker(agreed, run)
    assert schema_of(server) == schema_of(client)
    arrays = adapter_arrays(server)
    assert all(np.array_equal(values, arrays[name]) for name, values in adapter_arrays(client).items())
    histories = torch.randint(0, ITEMS, (3, HISTORY), generator=torch.Generator().manual_seed(0))
    assert (scores(server, histories) - scores(learned(), histories)).abs().max() <= 1e-6


def test_digest_tells_every_change_of_what_was_agreed_on(run):
    agreed = read_agreement(run)
    changes = {
        "run_id": "another",
        "local_learning_rate": agreed.local_learning_rate / 2,
        "mask_last": not agreed.mask_last,
        "negatives": 5,
        "seed": agreed.seed + 1,
        "server_key": "ab" * 32,
        "adapter": replace(agreed.adapter, rank=agreed.adapter.rank + 1),
        "plan": open_plan(),
    }
    digests = {replace(agreed, **{name: value}).digest() for name, value in changes.items()}
    assert len(digests | {agreed.digest()}) == len(changes) + 1
    assert read_agreement(run).digest() == agreed.digest()
