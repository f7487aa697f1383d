"""A merchant from its own files is the merchant a simulation would make of the same people; or it does not start."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from clients.app import build_app
from clients.merchant import Merchant
from clients.opening import local_training
from clients.own import open_own
from clients.replies import ReplyCache
from clients.settings import ClientSettings, load_client_settings
from clients.training import RankerLearner
from fedrec.agreement import agreed_ranker
from fedrec.code import code_digest
from fedrec.errors import ConfigError, DataError, FedrecError, PrivacyError, RunError
from fedrec.privacy.ledger import Ledger, LedgerFiles
from fedrec.privacy.policy import load_policy, write_policy
from fedrec.signed import LIFETIME_S, is_reply_signed_by
from fedrec.wire import Address, update_from_record
from tests.tiny_federation import context_of, sent, signed
from tests.tiny_invitation import PEOPLE, Operator, joined, people, write_events
from tests.tiny_ranker import instruction, open_plan, start_arrays


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(tmp_path_factory.mktemp("operator"))


@pytest.fixture(scope="module")
def fresh(operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merchant who has just joined."""
    folder = tmp_path_factory.mktemp("fresh")
    joined(operator, folder / "shop-7", events=write_events(folder / "events.csv"))
    return folder


@pytest.fixture
def shop(fresh: Path, tmp_path: Path) -> Path:
    """A copy of it, to spoil: the folder with ``client.toml``, beside ``events.csv``."""
    return Path(shutil.copytree(fresh, tmp_path / "copy")) / "shop-7"


def settings_of(shop: Path) -> ClientSettings:
    return load_client_settings(shop / "client.toml")


def changed(shop: Path, before: str, after: str) -> ClientSettings:
    """The settings after an edit of ``client.toml``."""
    path = shop / "client.toml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    return settings_of(shop)


def test_it_trains_on_the_people_of_the_file_exactly_as_a_simulated_merchant_would(tmp_path: Path) -> None:
    operator = Operator(tmp_path, open_plan())  # no noise, everyone takes part: the same people give the same bits
    events = write_events(tmp_path / "events.csv")
    joined(operator, tmp_path / "shop", events=events, allow_not_private=True)
    own = open_own(settings_of(tmp_path / "shop")).merchant
    agreed = operator.agreement
    simulated = Merchant(
        agreed,
        learner=RankerLearner(agreed_ranker(agreed, operator.run), people(), local_training(agreed)),
        policy=None,
        ledger=Ledger.create(LedgerFiles.beside(tmp_path / "other.sqlite"), dataset="x", policy=None),
        replies=ReplyCache(tmp_path / "reply.safetensors"),
        partition=0,
    )
    asked = instruction(agreed, start_arrays(agreed))
    ours, theirs = own.train_round(asked).arrays, simulated.train_round(asked).arrays
    assert list(ours) == list(theirs)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert any(values.any() for values in ours.values())


def test_a_round_that_the_server_signed_is_charged_to_the_ledger_and_answered(shop: Path, operator: Operator) -> None:
    own = open_own(settings_of(shop))
    asked = instruction(operator.agreement, start_arrays(operator.agreement))
    address = Address("train", 5, int(time.time()) + LIFETIME_S)
    message = sent(signed(asked, key=operator.key, address=address))
    reply = build_app(lambda context: own.merchant)(message, context_of(0))
    update = update_from_record(reply.content, schema=own.merchant.schema)
    registered = (shop / "keys" / "reply.pub").read_text().strip()
    assert is_reply_signed_by(registered, update, sender=5), "what the operator enrols is what signs"
    assert own.ledger.spent() > 0
    forged = sent(signed(asked, address=address))
    refused = build_app(lambda context: own.merchant)(forged, context_of(0))
    assert refused.error.reason == "E_PLAN", "signed by another key than the one that the policy pins"


def test_its_policy_allows_exactly_what_was_agreed(shop: Path, operator: Operator) -> None:
    policy, plan = load_policy(shop / "policy.toml"), operator.agreement.plan
    assert (policy.max_epsilon, policy.max_delta, policy.max_rounds_total) == (plan.epsilon, plan.delta, plan.rounds)
    assert (policy.allowed_bases, policy.allowed_code) == ((operator.agreement.base_digest,), (code_digest(),))
    assert (policy.server_key, policy.min_people) == (operator.key.public, PEOPLE)


def test_events_may_grow_between_two_starts_and_the_ledger_stays(shop: Path, operator: Operator) -> None:
    first = open_own(settings_of(shop))
    first.merchant.train_round(instruction(operator.agreement, start_arrays(operator.agreement)))
    spent = first.ledger.spent()
    with (shop.parent / "events.csv").open("a", encoding="utf-8") as events:
        events.write("".join(f"new,i{item:02d},{item}\n" for item in (1, 5, 9, 12)))
    again = open_own(settings_of(shop))
    assert (again.people, again.ledger.spent()) == (PEOPLE + 1, spent)


def test_rows_that_training_cannot_use_are_dropped_and_counted(shop: Path) -> None:
    dirty = "u000,i01,\nu001,,5\nu002,nowhere,5\nu999,i01,1\n"  # no time, no item, an unknown item, too few events
    write_events(shop.parent / "events.csv", more=dirty)
    own = open_own(settings_of(shop))
    dropped = {rule.rule: rule.dropped for rule in own.rules if rule.dropped}
    assert dropped == {"missing_timestamp": 1, "missing_item": 1, "unknown_item": 1}
    assert own.people == PEOPLE


def lost_ledger(shop: Path) -> None:
    (shop / "ledger.sqlite").unlink()


def lost_everything(shop: Path) -> None:
    for path in shop.glob("ledger.*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def lost_policy(shop: Path) -> None:
    (shop / "policy.toml").unlink()


def other_code(shop: Path) -> None:
    policy = load_policy(shop / "policy.toml")
    write_policy(policy.model_copy(update={"allowed_code": ("0" * 64,)}), shop / "policy.toml")


def other_server(shop: Path) -> None:
    policy = load_policy(shop / "policy.toml")
    write_policy(policy.model_copy(update={"server_key": "0" * 64}), shop / "policy.toml")


def fewer_people(shop: Path) -> None:
    write_events(shop.parent / "events.csv", people((5, 6, 7)))


def lost_reply_key(shop: Path) -> None:
    (shop / "keys" / "reply.key").unlink()


def no_events(shop: Path) -> None:
    (shop.parent / "events.csv").unlink()


def strange_items(shop: Path) -> None:
    (shop.parent / "events.csv").write_text("user_id,item_id,timestamp\na,1,1\na,2,2\na,3,3\n")


def spoiled_authority(shop: Path) -> None:
    (shop / "federation" / "ca.crt").write_text("another")


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (lost_ledger, PrivacyError, r"ledger\.sqlite: the ledger was lost .*never a fresh budget"),
        (lost_everything, PrivacyError, r"ledger\.sqlite: no ledger here; expected an existing one"),
        (lost_policy, PrivacyError, r"policy\.toml: no policy: nothing is allowed"),
        (
            other_code,
            PrivacyError,
            "allowed_code: .*, allowed one of .*; after an upgrade .*, put the first digest into",
        ),
        (other_server, PrivacyError, "policy server_key: .*, allowed '0000"),
        (fewer_people, PrivacyError, "policy min_people: fewer people here, allowed >= 8"),
        (lost_reply_key, ConfigError, r"reply\.key: the key cannot be read: No such file"),
        (no_events, DataError, r"events\.csv: cannot be read: No such file"),
        (strange_items, DataError, r"events\.csv: not one item is in the federation's catalogue"),
        (spoiled_authority, RunError, r"ca\.crt: was changed since the invitation was made"),
    ],
)
def test_it_does_not_start_when(spoil, kind: type[FedrecError], message: str, shop: Path) -> None:
    spoil(shop)
    with pytest.raises(kind, match=message):
        open_own(settings_of(shop))


def test_another_data_set_has_no_part_in_this_ledger(shop: Path) -> None:
    settings = settings_of(shop)
    with pytest.raises(PrivacyError, match="belongs to another data set"):
        open_own(changed(shop, settings.dataset, "0" * 64))


def test_privacy_cannot_be_switched_off_in_client_toml(shop: Path) -> None:
    with pytest.raises(PrivacyError, match="not_private = true, and the agreed plan is private; join again"):
        open_own(changed(shop, "not_private = false", "not_private = true"))


def test_a_plan_without_privacy_needs_the_owners_word(tmp_path: Path) -> None:
    operator = Operator(tmp_path, open_plan())
    joined(operator, tmp_path / "shop", events=write_events(tmp_path / "events.csv"), allow_not_private=True)
    assert open_own(settings_of(tmp_path / "shop")).merchant
    with pytest.raises(PrivacyError, match="not_private = false, and the agreed plan is NOT PRIVATE; join again"):
        open_own(changed(tmp_path / "shop", "not_private = true", "not_private = false"))
