"""From files to a federation that is ready to run: who is where, what is held out, and what the run is called."""

import json

import numpy as np
import pytest

from fedrec.agreement import read_agreement
from fedrec.config import parse_config
from fedrec.errors import ConfigError, DataError, RunError
from fedrec.report.progress import Progress
from fedrec.runfolder import RunFolder
from simulations.prepare import prepare, read_people
from tests.tiny_run import FIRST_DAY, PEOPLE, SETTINGS, Bench, catalogue_rows, event_rows, write_csv


def config_of(bench, **changes):
    """The tiny settings on a bench's files; changes by section, joined by two underscores."""
    values = json.loads(json.dumps(SETTINGS))
    values["data"] |= {"events": str(bench.events), "catalogue": str(bench.catalogue)}
    for name, value in changes.items():
        section, _, key = name.rpartition("__")
        (values.setdefault(section, {}) if section else values)[key] = value
    return parse_config(values, source="test")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench.at(tmp_path_factory.mktemp("prepare"))


@pytest.fixture(scope="module")
def people(bench):
    return read_people(config_of(bench))


def test_nobody_is_in_two_places(people):
    partition = people.partition
    groups = [*partition.clients, people.panel_fit, people.panel_judge, partition.left_out]
    together = np.concatenate(groups)
    assert len(together) == len(np.unique(together)) == PEOPLE == len(people.split.train)


def test_panel_is_cut_into_those_who_teach_and_those_who_judge(people):
    assert len(people.partition.panel) == 24
    assert len(people.panel_judge) == round(0.2 * 24)
    np.testing.assert_array_equal(np.union1d(people.panel_fit, people.panel_judge), people.partition.panel)


def test_private_people_are_those_at_clients_sorted(people):
    np.testing.assert_array_equal(people.private, np.sort(np.concatenate(people.partition.clients)))
    assert len(people.private) == 4 * 10


def test_leave_last_out_holds_back_one_event_of_each(people):
    assert (people.split.targets.lengths == 1).all()
    assert people.events == PEOPLE * 8


def test_same_settings_give_the_same_people_and_another_seed_does_not(bench, people):
    again, other = read_people(config_of(bench)), read_people(config_of(bench, seed=1))
    np.testing.assert_array_equal(again.private, people.private)
    np.testing.assert_array_equal(again.panel_judge, people.panel_judge)
    assert not np.array_equal(other.private, people.private)


def test_manifest_is_written_when_named(bench, tmp_path):
    read_people(config_of(bench, partition__scheme="by-column:Country"), manifest=tmp_path / "partition.json")
    manifest = json.loads((tmp_path / "partition.json").read_text(encoding="utf-8"))
    assert {client["name"] for client in manifest["clients"]} == {"Austria", "Brazil", "Chad", "Denmark"}
    assert [client["people"] for client in manifest["clients"]] == [10] * 4
    assert manifest["panel"]["people"] == 24


def test_a_brand_is_a_client_and_sees_only_what_was_bought_of_it(tmp_path):
    made = Bench.at(tmp_path)
    brand_of = {f"i{item:02d}": ("Even", "Odd")[item % 2] for item in range(40)}
    write_csv(made.catalogue, [row | {"brand": brand_of[str(row["item_id"])]} for row in catalogue_rows()])
    changes = {"partition__scheme": "by-column:brand", "partition__clients": 2, "partition__people_per_client": 200}
    people = read_people(config_of(made, **changes, data__min_events=3))
    assert people.partition.names == ("Even", "Odd")
    for rest, group in enumerate(people.partition.clients):
        for split in (people.split.train, people.split.targets):
            assert {int(item) % 2 for person in group for item in split.of(int(person))} == {rest}
    assert PEOPLE < len(people.split.train) <= 2 * PEOPLE


def test_masking_histories_where_people_buy_again_is_refused(tmp_path):
    made, _ = repeating(tmp_path)
    with pytest.raises(DataError, match=r"data\.mask_history: \d+ of \d+ events take an item .* set it to false"):
        read_people(config_of(made, data__mask_history=True))


def repeating(folder):
    """Everyone buys A A B A B before the cut, and B A at one time after it."""
    day, cut = 86_400, FIRST_DAY + 10 * 86_400
    walk = [("i00", -5), ("i00", -4), ("i01", -3), ("i00", -2), ("i01", -1), ("i01", 1), ("i00", 1)]
    rows = [
        {"user_id": f"p{person:02d}", "item_id": item, "timestamp": cut + day * at}
        for person in range(12)
        for item, at in walk
    ]
    made = Bench.at(folder)
    write_csv(made.events, rows)
    return made, "2011-03-23T07:06:40"  # FIRST_DAY plus ten days, UTC


def test_next_basket_keeps_a_repeat_as_a_target_but_merges_the_past(tmp_path):
    made, cut = repeating(tmp_path)
    split = read_people(config_of(made, data__split="next-basket", data__time_cut=cut)).split
    assert split.train.of(0).tolist() == [0, 1, 0, 1]
    assert sorted(split.targets.of(0).tolist()) == [0, 1]  # i01 is the last item seen, and still asked for


def test_next_basket_cuts_the_past_not_the_basket(tmp_path):
    made, cut = repeating(tmp_path)
    split = read_people(config_of(made, data__split="next-basket", data__time_cut=cut, data__max_history=1)).split
    assert split.train.of(0).tolist() == [1]
    assert sorted(split.targets.of(0).tolist()) == [0, 1]


def test_next_basket_without_merging_keeps_the_past_whole(tmp_path):
    made, cut = repeating(tmp_path)
    config = config_of(made, data__split="next-basket", data__time_cut=cut, data__merge_repeats=False)
    assert read_people(config).split.train.of(0).tolist() == [0, 0, 1, 0, 1]


def test_positions_are_no_clock(tmp_path):
    made = Bench.at(tmp_path)
    write_csv(made.events, [row | {"timestamp": number} for number, row in enumerate(event_rows())])
    with pytest.raises(DataError, match="timestamps are positions, not clock times"):
        read_people(config_of(made, data__split="next-basket"))


def test_without_anything_to_ask_the_run_does_not_start(bench):
    with pytest.raises(
        DataError, match=r"nobody at a client has a held-out target; .*data\.time_cut.*data\.max_history"
    ):
        read_people(config_of(bench, data__max_history=1))


def test_a_bad_date_is_named(bench):
    with pytest.raises(ConfigError, match=r"data\.time_cut='soon': expected an ISO date"):
        read_people(config_of(bench, data__split="next-basket", data__time_cut="soon"))


def test_the_normaliser_is_the_nominal_size_of_a_client(tmp_path, bench):
    config = config_of(bench, pretraining__epochs=0)
    people = read_people(config)
    with RunFolder.create(tmp_path / "run") as opened:
        plan = prepare(config, opened, people, Progress(enabled=False)).plan
    assert plan.expected_people == people.partition.nominal_people == 10


def run_id(folder, bench, **changes):
    """Prepare a folder and say what its run is called."""
    config = config_of(bench, pretraining__epochs=0, **changes)
    with RunFolder.create(folder) as opened:
        return prepare(config, opened, read_people(config), Progress(enabled=False)).run_id


def with_last_event(folder, **values):
    """The tiny data with another last event of the last person, which is a target and nothing else."""
    made = Bench.at(folder)
    *rows, last = event_rows()
    write_csv(made.events, [*rows, last | values])
    return made


@pytest.fixture(autouse=True)
def _caches_here(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_run_is_called_by_its_settings_and_data_wherever_they_lie(bench, tmp_path):
    first = run_id(tmp_path / "a", bench)
    moved = Bench.at(tmp_path / "elsewhere")
    assert run_id(tmp_path / "b", moved) == first
    for number, changes in enumerate(({"seed": 1}, {"privacy__epsilon": 7.0}, {"local__memory_weight": 1.0})):
        assert run_id(tmp_path / f"c{number}", bench, **changes) != first
    assert run_id(tmp_path / "d", with_last_event(tmp_path / "t", item_id="i00")) != first
    assert run_id(tmp_path / "e", with_last_event(tmp_path / "s", timestamp=FIRST_DAY + 9 * 86_400)) != first


def test_a_prepared_folder_is_read_back_and_refuses_other_data(bench, tmp_path):
    config = config_of(bench, pretraining__epochs=0)
    other = config_of(with_last_event(tmp_path / "other", item_id="i00"), pretraining__epochs=0)
    with RunFolder.create(tmp_path / "run") as folder:
        agreed = prepare(config, folder, read_people(config), Progress(enabled=False))
        assert prepare(config, folder, read_people(config), Progress(enabled=False)) == agreed
        with pytest.raises(RunError, match="run: was prepared from other data or settings; choose another --out"):
            prepare(other, folder, read_people(other), Progress(enabled=False))
    assert read_agreement(tmp_path / "run") == agreed


def test_large_catalogues_get_negatives(bench, tmp_path):
    config = config_of(bench, pretraining__epochs=0, model__full_softmax=39, model__negatives=7)
    with RunFolder.create(tmp_path / "run") as folder:
        assert prepare(config, folder, read_people(config), Progress(enabled=False)).negatives == 7
    config = config_of(bench, pretraining__epochs=0, model__full_softmax=40, model__negatives=7)
    with RunFolder.create(tmp_path / "other") as folder:
        assert prepare(config, folder, read_people(config), Progress(enabled=False)).negatives is None
