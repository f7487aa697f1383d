"""Items that nobody may learn from, and merchants that take no part: never seen by the federation, and judged."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from clients.memory import LocalMemory
from clients.remembering import memory_spec
from fedrec.agreement import agreed_ranker, read_agreement
from fedrec.config import load_config
from fedrec.errors import ConfigError, DataError
from fedrec.evaluation.fairness import gains, gains_by_size
from fedrec.model.adapters import load_adapter_arrays
from fedrec.model.base import load_base
from fedrec.model.pairs import PublicPairs
from fedrec.model.popularity import popularity_shares
from fedrec.workspace import client_count, client_histories
from simulations.prepare import read_people
from simulations.rows import ranker_scorer
from tests.simulations.test_prepare import config_of
from tests.tiny_run import DAY, ITEMS, Bench, event_rows, read_lines, write_csv

CHANGES = {
    "data.cold_items": 0.2,  # eight of the forty items
    "partition.scheme": "dirichlet",
    "partition.held_out_clients": 2,
    "partition.people_per_client": 30,
    "local.tuning_steps": 0,
    "seed": 1,
    "federation.server_learning_rate": 0.05,  # so that three rounds move ranks
    "pretraining.judge_share": 0.0,  # the last round is published, whatever it does
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    made = Bench.at(tmp_path_factory.mktemp("new"), CHANGES)
    assert made.simulate("--no-dp").exit_code == 0
    return made


@pytest.fixture(scope="module")
def people(bench):
    return read_people(load_config(bench.out / "config.toml"))


@pytest.fixture(scope="module")
def cold(people):
    """The items that nobody learns from."""
    return np.setdiff1d(np.arange(ITEMS), people.split.train.items)


def ranks_of(scores, people, asked):
    """Where each person's target stands, the last item taken out: 1 is best."""
    ranks = []
    for row, person in zip(scores.copy(), asked, strict=True):
        row[people.split.train.of(int(person))[-1]] = -np.inf
        (target,) = people.split.targets.of(int(person))
        ranks.append(1 + int((row > row[target]).sum()))
    return np.array(ranks)


def ndcg(ranks):
    return float(np.mean((ranks <= 10) / np.log2(1 + ranks)))


def test_as_many_items_as_asked_for_are_in_nobodys_training_and_all_are_somebodys_target(bench, people, cold):
    assert len(cold) == 8
    asked = people.split.targets.subset(np.concatenate(people.partition.everywhere))
    assert set(cold.tolist()) <= set(asked.items.tolist())


def test_the_panel_has_never_counted_a_cold_item(bench, people, cold):
    pairs = PublicPairs.load(bench.out / "base")
    is_seen = pairs.counts > 0
    assert is_seen.any()
    assert not (np.isin(pairs.first[is_seen], cold) | np.isin(pairs.then[is_seen], cold)).any()
    panel = people.split.train.subset(people.partition.panel)
    assert not popularity_shares(panel, items=ITEMS, half_life_days=None)[cold].any()


def test_no_client_holds_a_cold_item(bench, cold):
    for client in range(client_count(bench.out)):
        assert not np.isin(client_histories(bench.out, client).items, cold).any()


def test_the_base_finds_cold_items_as_often_as_counted_by_hand(bench, people, cold):
    pairs = [PublicPairs.load(bench.out / "base").part()]
    asked = [person for person in people.private if np.isin(people.split.targets.of(int(person)), cold).any()]
    scores = ranker_scorer(load_base(bench.out / "base"), people.split.train, parts=pairs)(np.array(asked))
    rate = float(np.mean(ranks_of(scores, people, asked) <= 10))
    assert bench.summary()["cold_people"] == len(asked) > 0
    assert bench.summary()["metrics"]["base"]["cold_hr@10"] == pytest.approx(rate)
    assert 0 < rate < 1


def test_every_row_is_judged_on_cold_items_and_counting_finds_none(bench):
    metrics = bench.summary()["metrics"]
    assert all("cold_hr@10" in row for row in metrics.values())
    assert metrics["popularity"]["cold_hr@10"] == metrics["markov_knn"]["cold_hr@10"] == 0.0


def test_merchants_held_out_are_never_asked_and_have_no_ledger(bench, people):
    assert len(people.partition.held_out) == 2
    assert client_count(bench.out) == 4
    held = sum(len(client_histories(bench.out, client)) for client in range(4))
    assert held == len(people.private) == sum(map(len, people.partition.clients))
    for number, group in enumerate(people.partition.clients):
        mine = client_histories(bench.out, number)
        assert [mine.of(row).tolist() for row in range(len(group))] == [
            people.split.train.of(int(person)).tolist() for person in group
        ]
    assert len(list((bench.out / "ledger").glob("*.sqlite"))) == 4
    assert {line["asked"] for line in read_lines(bench.out / "events.jsonl")} == {4}
    assert not np.isin(np.concatenate(people.partition.held_out), people.private).any()


def memories(config, people, asked):
    """What the merchant of each adds to the scores, (N, I)."""
    train = people.split.train
    prior = popularity_shares(train.subset(people.partition.panel), items=ITEMS, half_life_days=None)
    added = np.zeros((len(asked), ITEMS))
    for group in people.partition.held_out:
        memory = LocalMemory.of(train.subset(group), memory_spec(config.local), items=ITEMS, prior=prior)
        for place in np.flatnonzero(np.isin(asked, group)):
            added[place] = memory.scores(train.of(int(asked[place])), train.times(int(asked[place])))
    return added


def test_merchants_held_out_deploy_the_published_adapter_with_their_own_memory(bench, people):
    """All four rows again, by hand."""
    pairs = [PublicPairs.load(bench.out / "base").part()]
    ranker = agreed_ranker(read_agreement(bench.out), bench.out)
    asked = np.concatenate(people.partition.held_out)
    asked = asked[people.split.targets.lengths[asked] > 0]
    base = ranker_scorer(ranker, people.split.train, parts=pairs)(asked)
    load_adapter_arrays(ranker, load_file(bench.out / "adapter.safetensors"))
    shared = ranker_scorer(ranker, people.split.train, parts=pairs)(asked)
    memory = memories(load_config(bench.out / "config.toml"), people, asked)
    expected = {"base": base, "local_only": base + memory, "shared": shared, "federated": shared + memory}
    found = bench.summary()["held_out"]["metrics"]
    for row, scores in expected.items():
        assert found[row]["ndcg@10"] == pytest.approx(ndcg(ranks_of(scores, people, asked)), abs=1e-9), row
    assert len({found[row]["ndcg@10"] for row in expected}) == 4


def test_gains_are_those_of_the_merchants_in_the_report(bench, people):
    clients = json.loads((bench.out / "report.json").read_text(encoding="utf-8"))["context"]["clients"]
    assert [client["people"] for client in clients] == [len(group) for group in people.partition.clients]
    change = np.array([client["federated"] - client["local_only"] for client in clients])
    sizes = np.array([client["people"] for client in clients])
    fairness = bench.summary()["fairness"]
    assert fairness["over_local_only"] == pytest.approx(gains(change))
    assert [dict(group) for group in fairness["by_size"]] == [pytest.approx(g) for g in gains_by_size(change, sizes)]
    assert fairness["over_base"]["mean"] != fairness["over_local_only"]["mean"]


def test_a_run_in_which_all_take_part_says_nothing_of_merchants_held_out(bare_run):
    assert bare_run[0].summary()["held_out"] is None


def test_a_base_made_elsewhere_does_not_go_with_cold_items(bench):
    config = config_of(bench, data__cold_items=0.1, pretraining__base=str(bench.out / "base"))
    with pytest.raises(ConfigError, match=r"data\.cold_items: the base of pretraining\.base may have learned .* leave"):
        read_people(config)


def test_merchants_held_out_need_somebody_to_ask(tmp_path):
    """In Denmark everything happens after the cut, so nobody there has a past and a target."""
    made = Bench.at(tmp_path)
    rows = [
        row | {"timestamp": int(row["timestamp"]) + 20 * DAY * (row["Country"] == "Denmark")} for row in event_rows()
    ]
    write_csv(made.events, rows)
    changes = {"data__split": "next-basket", "data__time_cut": "2011-03-19", "partition__scheme": "by-column:Country"}
    drawn, refused = set(), set()
    for seed in range(12):
        config = config_of(made, **changes, partition__clients=3, partition__held_out_clients=1, seed=seed)
        try:
            drawn |= set(read_people(config).partition.held_out_names)
        except DataError as error:
            refused.add(str(error))
    assert drawn == {"Austria", "Brazil", "Chad"}
    assert refused == {
        "nobody at a held-out merchant has a held-out target; move data.time_cut, raise data.max_history or bring "
        "more data"
    }
