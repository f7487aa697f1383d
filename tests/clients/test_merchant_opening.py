"""A merchant opens only with a model and a loss that keep people apart, and sends the adapter's arrays alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import clients.opening
import clients.training
from clients.merchant import load_merchant
from clients.opening import check_person_gradients, local_training
from clients.training import LocalTraining, step_losses
from fedrec.agreement import FILE, read_agreement
from fedrec.errors import PrivacyError, RunError
from fedrec.model.adapters import attach_adapter, schema_of
from fedrec.model.decoder import small_llama
from fedrec.model.losses import person_losses
from fedrec.wire import Update, update_to_record
from tests.tiny_ranker import (
    KINDS,
    TARGETS,
    adapted,
    adapter_spec,
    histories,
    instruction,
    learned,
    nudge,
    private_plan,
    run_folder,
    start_arrays,
    untrained,
)

PEOPLE = histories(5, 9, 3, 14)
FULL = LocalTraining(mask_last=True, negatives=None, seed=0)
LONG = 40


@pytest.fixture
def private_run(tmp_path):
    run_folder(tmp_path / "run", PEOPLE, [np.array([0, 3]), np.array([1, 2])], plan=private_plan())
    return tmp_path / "run"


@pytest.mark.parametrize("negatives", [None, 9])
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_offered_adapter_passes_the_self_check_and_is_left_as_it_was(kind, targets, negatives):
    ranker = adapted(kind=kind, targets=targets)
    before = {name: values.clone() for name, values in ranker.state_dict().items()}
    check_person_gradients(ranker, replace(FULL, negatives=negatives))
    assert all(torch.equal(before[name], values) for name, values in ranker.state_dict().items())
    assert schema_of(ranker)


def test_loss_that_couples_people_is_refused_when_the_merchant_opens(private_run, monkeypatch):
    def in_batch(ranker, windows, *, mask_last, negatives=None):
        return person_losses(ranker, windows, mask_last=mask_last, negatives=torch.unique(windows.targets))

    clients.opening.resident.cache_clear()
    monkeypatch.setattr(clients.training, "person_losses", in_batch)
    with pytest.raises(PrivacyError, match="a person's loss changes with the batch"):
        load_merchant(private_run, 0)


def test_ranker_that_couples_people_is_refused():
    ranker = adapted()
    states = ranker.states

    def centred(items, positions):
        sequence, text = states(items, positions)
        return sequence - sequence.mean(dim=0), text

    ranker.states = centred
    with pytest.raises(PrivacyError, match="a person's loss changes with the batch"):
        check_person_gradients(ranker, FULL)


@pytest.mark.parametrize(
    "turning",
    [
        {"rope_type": "dynamic", "factor": 8.0},
        {
            "rope_type": "longrope",
            "factor": 4.0,
            "short_factor": [1.0] * 4,
            "long_factor": [9.0] * 4,
            "original_max_position_embeddings": LONG // 2,
        },
    ],
    ids=lambda turning: turning["rope_type"],
)
def test_decoder_whose_positions_depend_on_the_longest_window_of_a_batch_is_refused(turning):
    """With one long window among them everyone's gradient changes: by half, where this was measured."""
    decoder = small_llama(width=16, layers=2, heads=2, feed_forward=24, history=LONG)
    decoder |= {"max_position_embeddings": LONG // 2, "rope_parameters": {"rope_theta": 1e4, **turning}}
    ranker = nudge(untrained(decoder=decoder, history=LONG))
    attach_adapter(ranker, adapter_spec(), seed=0)
    people = histories(LONG // 4, LONG)
    with torch.no_grad():
        alone, among = (
            step_losses(ranker.train(), people, np.arange(persons), step=0, training=FULL)[0] for persons in (1, 2)
        )
    assert abs(among - alone) > 1e-3  # it is as the name says
    with pytest.raises(PrivacyError, match="a person's loss changes with the batch"):
        check_person_gradients(ranker, FULL)


def test_ranker_with_batch_statistics_is_refused():
    ranker = adapted()
    ranker.item_input = nn.Sequential(ranker.item_input, nn.BatchNorm1d(6))
    with pytest.raises(PrivacyError, match="BatchNorm1d mixes people"):
        check_person_gradients(ranker, FULL)


def test_ranker_that_drops_at_random_is_refused():
    ranker = adapted()
    ranker.dropout.p = 0.3
    with pytest.raises(PrivacyError, match=r"changes with the batch.*no fresh randomness"):
        check_person_gradients(ranker, FULL)


def test_ranker_without_an_adapter_is_refused():
    ranker = learned()
    ranker.freeze()
    with pytest.raises(PrivacyError, match="the model has no trainable parameter"):
        check_person_gradients(ranker.train(), FULL)


def test_model_is_loaded_and_checked_once_per_process(private_run, monkeypatch):
    checked = []
    monkeypatch.setattr(clients.opening, "check_person_gradients", lambda *_: checked.append(1))
    for partition in (0, 1, 0):
        load_merchant(private_run, partition)
    assert checked == [1]


def test_run_or_client_that_is_not_there_is_refused(private_run, tmp_path):
    with pytest.raises(RunError, match="holds clients 0 to 1, not 2"):
        load_merchant(private_run, 2)
    with pytest.raises(RunError, match=FILE):
        load_merchant(tmp_path / "nowhere", 0)


def test_agreement_shapes_the_loss(private_run):
    agreed = replace(read_agreement(private_run), mask_last=False, negatives=7, seed=11)
    assert local_training(agreed) == LocalTraining(mask_last=False, negatives=7, seed=11)


def test_only_the_adapters_arrays_leave(private_run):
    merchant, agreed = load_merchant(private_run, 0), read_agreement(private_run)
    names = {spec.name for spec in merchant.schema}
    assert names == set(start_arrays(agreed))
    assert all(".lora_" in name or "norm" in name or name.endswith("_gain.weight") for name in names)
    reply = merchant.train_round(instruction(agreed, start_arrays(agreed))).arrays
    assert {name: values.shape for name, values in reply.items()} == dict(merchant.schema)
    assert all(values.dtype == np.float32 for values in reply.values())
    assert (merchant.base_digest, merchant.agreement_digest) == (agreed.base_digest, agreed.digest())


def test_repeated_reply_makes_the_same_message(private_run):
    merchant, agreed = load_merchant(private_run, 0), read_agreement(private_run)
    asked = instruction(agreed, start_arrays(agreed))
    header = (asked.run_id, asked.round_index, asked.base_digest, asked.agreement_digest)
    answers = [merchant.train_round(asked) for _ in range(2)]
    records = [update_to_record(Update(*header, ledger_head=a.ledger_head, arrays=a.arrays)) for a in answers]
    assert records[0]["header"] == records[1]["header"]
    assert list(records[0]["update"]) == list(records[1]["update"])
    assert all(array.data == records[1]["update"][name].data for name, array in records[0]["update"].items())
