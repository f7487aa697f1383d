"""A client that trains on the shop's own store: the same people as from a file, one ledger for ever."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clients.joining
from clients.own import Own, open_own
from clients.serving.forgetting import key_beside
from clients.serving.importing import import_events
from clients.serving.store import EventStore
from clients.settings import load_client_settings
from fedrec.errors import ConfigError, DataError, PrivacyError, RunError
from fedrec.invitation import Invitation
from tests.clients.serving.shops import view
from tests.tiny_invitation import PEOPLE, Operator, catalogue, joined, write_events
from tests.tiny_ranker import instruction, open_plan, start_arrays

ONE_LEDGER = "fresh budget; name theirs: fedrec join --ledger, or dataset and ledger in client.toml"


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(tmp_path_factory.mktemp("operator"))


@pytest.fixture(scope="module")
def autumn(operator: Operator) -> Invitation:
    """A second invitation of the same operator."""
    return operator.invite(operator.run.parent / "autumn", "127.0.0.1:9443")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of the eight people's events."""
    path = tmp_path / "shop.sqlite"
    with EventStore.create(path) as made:
        import_events(made, write_events(tmp_path / "events.csv"), columns={}, kind="purchase")
    return path


def opened(shop: Path) -> Own:
    return open_own(load_client_settings(shop / "client.toml"))


def copied(store: Path, folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(key_beside(store), folder / "shop.key")
    return Path(shutil.copy(store, folder / "shop.sqlite"))


def dropped(own: Own) -> dict[str, int]:
    return {rule.rule: rule.dropped for rule in own.rules if rule.dropped}


def test_it_trains_on_the_people_of_the_store_exactly_as_on_those_of_the_file(store: Path, tmp_path: Path) -> None:
    operator = Operator(tmp_path, open_plan())  # no noise, everyone takes part: the same people give the same bits
    sources = {"one": {"store": store}, "other": {"events": tmp_path / "events.csv"}}
    for name, source in sources.items():
        joined(operator, tmp_path / name, allow_not_private=True, **source)
    asked = instruction(operator.agreement, start_arrays(operator.agreement))
    ours, theirs = (opened(tmp_path / name).merchant.train_round(asked).arrays for name in sources)
    assert list(ours) == list(theirs)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert any(values.any() for values in ours.values())


def test_who_said_no_or_is_forgotten_and_what_is_unknown_is_left_out_and_counted(
    operator: Operator, store: Path, tmp_path: Path
) -> None:
    with EventStore.open(store) as shop:
        for who in ("new", "no", "gone"):
            shop.append([view(who, item, at) for at, item in enumerate(catalogue().item_ids[:4])])
        shop.append([view("new", "unknown", 9), view("no", "unknown", 9), view("no", "unknown", 10)])
        shop.set_choice("no", training=False)
        shop.forget("gone")
    made = joined(operator, tmp_path / "shop-7", store=store)
    assert made.people == PEOPLE + 1
    assert dropped(opened(tmp_path / "shop-7")) == {"no_training": 6, "unknown_item": 1}


def test_between_two_starts_people_come_and_are_forgotten_and_the_ledger_stays(
    operator: Operator, store: Path, tmp_path: Path
) -> None:
    joined(operator, tmp_path / "shop-7", store=store, min_people=1)
    first = opened(tmp_path / "shop-7")
    first.merchant.train_round(instruction(operator.agreement, start_arrays(operator.agreement)))
    spent = first.ledger.spent()
    assert spent > 0
    with EventStore.open(store) as shop:
        shop.forget("u000")
        shop.set_choice("u001", training=False)
        shop.append([view("new", item, at) for at, item in enumerate(catalogue().item_ids[:4])])
    again = opened(tmp_path / "shop-7")
    assert (again.people, again.ledger.spent()) == (PEOPLE - 1, spent)


def test_a_second_federation_goes_on_in_the_first_ones_ledger_and_in_no_other(
    operator: Operator, autumn: Invitation, store: Path, tmp_path: Path
) -> None:
    joined(operator, tmp_path / "shop-7", store=store)
    with pytest.raises(PrivacyError, match=ONE_LEDGER):
        joined(operator, tmp_path / "fresh", store=store, invitation=autumn)
    assert not (tmp_path / "fresh").exists()
    opened(tmp_path / "shop-7").merchant.train_round(instruction(operator.agreement, start_arrays(operator.agreement)))
    ledger = tmp_path / "shop-7" / "ledger.sqlite"
    joined(operator, tmp_path / "more", store=store, invitation=autumn, ledger=ledger)
    own = opened(tmp_path / "more")
    assert own.ledger.files.ledger.resolve() == ledger.resolve()
    assert own.ledger.spent() == opened(tmp_path / "shop-7").ledger.spent() > 0
    assert not (tmp_path / "more" / "ledger.sqlite").exists()


def test_two_clients_on_one_ledger_answer_a_round_with_the_same_bytes(
    operator: Operator, store: Path, tmp_path: Path
) -> None:
    """Else each would draw noise of its own, and the people would have paid for one of the two."""
    joined(operator, tmp_path / "shop-7", store=store)
    joined(operator, tmp_path / "twin", store=store, ledger=tmp_path / "shop-7" / "ledger.sqlite")
    merchants = [opened(tmp_path / name).merchant for name in ("shop-7", "twin")]
    asked = instruction(operator.agreement, start_arrays(operator.agreement))
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(lambda merchant: merchant.train_round(asked).arrays, merchants)
    assert all(np.array_equal(values, other[name]) for name, values in one.items())
    assert any(values.any() for values in one.values())


def test_a_file_too_may_go_on_in_a_ledger(operator: Operator, autumn: Invitation, tmp_path: Path) -> None:
    events, ledger = write_events(tmp_path / "events.csv"), tmp_path / "shop-7" / "ledger.sqlite"
    joined(operator, tmp_path / "shop-7", events=events)
    joined(operator, tmp_path / "more", events=events, invitation=autumn, ledger=ledger)
    datasets = {load_client_settings(tmp_path / name / "client.toml").dataset for name in ("shop-7", "more")}
    assert len(datasets) == 1
    assert opened(tmp_path / "more").ledger.files.ledger.resolve() == ledger.resolve()


def test_a_copy_of_the_store_gets_no_fresh_budget(operator: Operator, store: Path, tmp_path: Path) -> None:
    joined(operator, tmp_path / "shop-7", store=store)
    with pytest.raises(PrivacyError, match=ONE_LEDGER):
        joined(operator, tmp_path / "shop-8", store=copied(store, tmp_path / "copy"))
    with EventStore.open(store) as shop:
        shop.forget("u000")  # which writes the file anew
    with pytest.raises(PrivacyError, match=ONE_LEDGER):
        joined(operator, tmp_path / "shop-8", store=store, min_people=1)


def test_a_store_that_another_client_has_claimed_is_not_trained_on(
    operator: Operator, store: Path, tmp_path: Path
) -> None:
    """As when both joined at the same moment, or ``client.toml`` was changed."""
    joined(operator, tmp_path / "shop-7", store=store)
    elsewhere = copied(store, tmp_path / "copy")
    shutil.copy(tmp_path / "events.csv", tmp_path / "more.csv")
    joined(operator, tmp_path / "shop-8", events=tmp_path / "more.csv")
    path = tmp_path / "shop-8" / "client.toml"
    path.write_text(path.read_text().replace('events = "../more.csv"', f'store = "{elsewhere}"'))
    with pytest.raises(PrivacyError, match=rf"copy/shop\.sqlite: the privacy of its people is .*{ONE_LEDGER}"):
        opened(tmp_path / "shop-8")


def test_a_shop_that_had_a_file_may_go_on_with_a_store(operator: Operator, store: Path, tmp_path: Path) -> None:
    joined(operator, tmp_path / "shop-7", events=tmp_path / "events.csv")
    path = tmp_path / "shop-7" / "client.toml"
    path.write_text(path.read_text().replace('events = "../events.csv"', 'store = "../shop.sqlite"'))
    assert opened(tmp_path / "shop-7").people == PEOPLE
    with pytest.raises(PrivacyError, match=ONE_LEDGER):
        joined(operator, tmp_path / "shop-8", store=store)


def test_joining_in_vain_leaves_the_store_as_it_was(
    operator: Operator, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PrivacyError, match="policy min_people: fewer people here"):
        joined(operator, tmp_path / "shop-7", store=store, min_people=PEOPLE + 1)

    def overtaken(*given: Any, **options: Any) -> Own:
        (tmp_path / "taken").mkdir()
        return open_own(*given, **options)

    with monkeypatch.context() as patched:
        patched.setattr(clients.joining, "open_own", overtaken)
        with pytest.raises(RunError, match="taken: exists; choose another place"):
            joined(operator, tmp_path / "taken", store=store)
    with EventStore.open(store) as shop:
        assert shop.dataset() is None
    joined(operator, tmp_path / "shop-7", store=store)
    with EventStore.open(store) as shop:
        assert shop.dataset() == load_client_settings(tmp_path / "shop-7" / "client.toml").dataset


def lost_key(store: Path) -> None:
    key_beside(store).unlink()


def lost_store(store: Path) -> None:
    store.unlink()


def nobody_allows(store: Path) -> None:
    with EventStore.open(store) as shop:
        for who in shop.people():
            shop.set_choice(who, training=False)


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (lost_key, RunError, r"shop\.key: the store's key cannot be read"),
        (lost_store, RunError, r"shop\.sqlite: no event store here"),
        (nobody_allows, DataError, r"shop\.sqlite: no event that may be used for training; fedrec store status tells"),
    ],
)
def test_it_does_not_start_when(spoil, kind, message: str, operator: Operator, store: Path, tmp_path: Path) -> None:
    joined(operator, tmp_path / "shop-7", store=store)
    spoil(store)
    with pytest.raises(kind, match=message):
        opened(tmp_path / "shop-7")


def test_a_file_or_a_store_is_named_and_not_both(operator: Operator, store: Path, tmp_path: Path) -> None:
    for given in ({}, {"events": tmp_path / "events.csv", "store": store}):
        with pytest.raises(ConfigError, match="--data or --store: expected one of the two"):
            joined(operator, tmp_path / "shop-7", **given)
