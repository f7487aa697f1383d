import json

import numpy as np
import polars as pl
import pytest

from fedrec.data.catalogue import Catalogue
from fedrec.data.partitions import make_partition, people_by_item, write_manifest
from fedrec.errors import ConfigError, DataError

COUNTRIES = ["UK"] * 40 + ["FR"] * 20 + ["DE"] * 20 + ["SE"] * 15 + [None] * 5
PEOPLE = pl.DataFrame({"user_id": [f"u{n:03d}" for n in range(100)], "Country": COUNTRIES})


def partition(scheme="even", people=PEOPLE, **changes):
    settings = {"clients": 4, "people_per_client": None, "panel_fraction": 0.1, "dirichlet_alpha": 1.0, "seed": 0}
    return make_partition(scheme, people=people, **{**settings, **changes})


@pytest.mark.parametrize("scheme", ["even", "dirichlet", "by-column:Country"])
@pytest.mark.parametrize("cap", [None, 3])
@pytest.mark.parametrize("seed", range(5))
def test_everyone_is_in_exactly_one_place(scheme, cap, seed):
    cut = partition(scheme, people_per_client=cap, seed=seed)
    everyone = np.concatenate([cut.panel, *cut.clients, cut.left_out])
    assert sorted(everyone.tolist()) == list(range(100))
    assert len(cut.panel) == 10
    assert len(cut.clients) == len(cut.names) == len(set(cut.names)) == 4
    sizes = [len(members) for members in cut.clients]
    assert min(sizes) >= 1
    assert cap is None or max(sizes) <= cap
    assert cut.nominal_people == sum(sizes) // 4
    for members in (cut.panel, *cut.clients, cut.left_out):
        assert members.dtype == np.int64
        assert (np.diff(members) > 0).all()


@pytest.mark.parametrize("scheme", ["even", "dirichlet", "by-column:Country"])
def test_the_seed_alone_decides(scheme):
    first, again, other = partition(scheme, seed=3), partition(scheme, seed=3), partition(scheme, seed=4)
    assert [members.tolist() for members in first.clients] == [members.tolist() for members in again.clients]
    assert first.panel.tolist() == again.panel.tolist() != other.panel.tolist()


def test_the_panel_is_the_same_whatever_the_scheme():
    assert partition("even").panel.tolist() == partition("by-column:Country").panel.tolist()


def test_even_clients_differ_by_at_most_one_person():
    assert sorted({len(members) for members in partition(clients=7).clients}) == [12, 13]


def test_a_thousandth_client_of_one_person_works():
    cut = partition(clients=90, people_per_client=1)
    assert {len(members) for members in cut.clients} == {1}
    assert cut.nominal_people == 1


def test_a_small_alpha_gives_more_uneven_clients():
    spread = {
        alpha: np.mean(
            [np.std([len(c) for c in partition("dirichlet", dirichlet_alpha=alpha, seed=s).clients]) for s in range(30)]
        )
        for alpha in (0.1, 1.0, 100.0)
    }
    assert spread[0.1] > 1.5 * spread[1.0] > 3 * spread[100.0]


def test_dirichlet_clients_share_out_everyone():
    for seed in range(50):
        cut = partition("dirichlet", clients=90, dirichlet_alpha=0.01, seed=seed)
        assert [len(members) for members in cut.clients] == [1] * 90


def test_a_column_makes_its_largest_values_clients_and_leaves_the_rest_out():
    cut = partition("by-column:Country", clients=2, panel_fraction=0.0)
    assert cut.names == ("UK", "DE")  # DE and FR are equal: the smaller name first
    assert PEOPLE["Country"].gather(cut.clients[1]).unique().to_list() == ["DE"]
    assert len(cut.left_out) == 40
    assert len(cut.panel) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"people": PEOPLE.head(1), "clients": 1}, "1 person in the data; a federation needs at least two"),
        ({"people": PEOPLE.head(0), "clients": 1}, "0 person in the data"),
        ({"clients": 91}, "90 people beside a panel of 10 are fewer than 91 clients; lower --clients"),
        ({"people": PEOPLE.head(3)}, "2 people beside a panel of 1 are fewer than 4 clients"),
        (
            {"scheme": "by-column:Country", "clients": 5},
            "4 values are fewer than 5 clients; lower --clients to 4 or less",
        ),
        ({"scheme": "by-column:shop"}, "by-column:shop: no such column of people or items; there are: Country"),
        ({"scheme": "by-column:user_id"}, "no such column of people or items"),
    ],
)
def test_an_impossible_partition_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        partition(**changes)


def test_a_column_of_the_catalogue_cuts_a_person_into_one_at_each_brand():
    events = pl.DataFrame({"user_id": ["b", "a", "b", "b", "a"], "item_id": ["i2", "i0", "i1", "i0", "i3"]})
    brands = pl.DataFrame({"brand": [" Pilot", "Avery", "Pilot", " "]})
    items = Catalogue(("i0", "i1", "i2", "i3"), ("pen", "label", "pencil", "nothing"), brands)
    cut = people_by_item(events, items, scheme="by-column:brand")
    assert cut.to_dict(as_series=False) == {
        "user_id": ["b at Pilot", "a at Pilot", "b at Avery", "b at Pilot"],
        "item_id": ["i2", "i0", "i1", "i0"],
        "brand": ["Pilot", "Pilot", "Avery", "Pilot"],
    }
    for scheme in ("even", "dirichlet", "by-column:shop"):
        assert people_by_item(events, items, scheme=scheme) is events
    own = events.with_columns(brand=pl.lit("of the event"))
    assert people_by_item(own, items, scheme="by-column:brand") is own


def test_an_unknown_scheme_is_a_config_error():
    with pytest.raises(ConfigError, match=r"partition\.scheme='random': expected even, dirichlet or by-column:COLUMN"):
        partition("random")


def test_the_manifest_counts_everyone_and_names_nobody(tmp_path):
    cut = partition("by-column:Country", clients=2)
    write_manifest(cut, PEOPLE, tmp_path / "a.json")
    write_manifest(partition("by-column:Country", clients=2), PEOPLE, tmp_path / "b.json")
    text = (tmp_path / "a.json").read_text()
    assert text == (tmp_path / "b.json").read_text()
    assert "u0" not in text
    manifest = json.loads(text)
    assert manifest["scheme"] == "by-column:Country"
    assert [client["name"] for client in manifest["clients"]] == list(cut.names)
    assert [client["people"] for client in manifest["clients"]] == [len(members) for members in cut.clients]
    assert manifest["panel"]["people"] + sum(c["people"] for c in manifest["clients"]) + len(cut.left_out) == 100
    assert sum(manifest["left_out"]["values"].values()) == manifest["left_out"]["people"] == len(cut.left_out)
    assert "(none)" in manifest["left_out"]["values"]


def test_the_manifest_of_other_people_has_other_digests(tmp_path):
    write_manifest(partition(), PEOPLE, tmp_path / "a.json")
    write_manifest(partition(seed=1), PEOPLE, tmp_path / "b.json")
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert first["panel"]["people"] == second["panel"]["people"]
    assert first["panel"]["sha256"] != second["panel"]["sha256"]
    assert first["left_out"]["values"] == {}


@pytest.mark.parametrize("scheme", ["even", "dirichlet", "by-column:Country"])
@pytest.mark.parametrize("seed", range(5))
def test_merchants_held_out_are_dealt_like_the_others_and_are_none_of_them(scheme, seed):
    cut = partition(scheme, clients=3, held_out=1, seed=seed)
    whole = partition(scheme, clients=4, seed=seed)
    assert (len(cut.clients), len(cut.held_out), len(cut.held_out_names)) == (3, 1, 1)
    assert sorted(cut.names + cut.held_out_names) == sorted(whole.names)
    dealt = dict(zip(cut.names + cut.held_out_names, cut.everywhere, strict=True))
    assert {name: group.tolist() for name, group in dealt.items()} == {
        name: group.tolist() for name, group in zip(whole.names, whole.clients, strict=True)
    }
    assert cut.nominal_people == sum(map(len, cut.clients)) // 3
    assert cut.left_out.tolist() == whole.left_out.tolist()


def test_the_seed_draws_which_merchants_are_held_out():
    drawn = {partition("by-column:Country", clients=3, held_out=1, seed=seed).held_out_names for seed in range(30)}
    assert drawn == {("UK",), ("FR",), ("DE",), ("SE",)}


def test_the_manifest_tells_held_out_merchants_apart(tmp_path):
    cut = partition(clients=3, held_out=1)
    write_manifest(cut, PEOPLE, tmp_path / "partition.json")
    manifest = json.loads((tmp_path / "partition.json").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in manifest["held_out"]] == list(cut.held_out_names)
    assert manifest["held_out"][0]["people"] == len(cut.held_out[0])
    assert len(manifest["clients"]) == 3
