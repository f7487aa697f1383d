from dataclasses import replace

import numpy as np
import pytest

from fedrec.errors import ConfigError, DataError
from fedrec.model.impressions import Category, ClickSpec, Impressions
from tests.tiny_clicks import SPEC, columns

NUMBERS = ClickSpec(numbers=("x",), number_bins=3, categories=())
WORDS = ClickSpec(numbers=(), number_bins=1, categories=(Category("brand", ("7", "acme")), Category("maker", ("",))))


@pytest.mark.parametrize(
    ("number", "slot"),
    [
        *[(0, 3), (0.99, 3), (1, 4), (2.99, 4), (3, 5), (1e9, 5), (np.inf, 5)],
        *[(-0.1, 2), (-1, 2), (-1.1, 1), (-3.1, 0), (-np.inf, 0)],
        *[(None, 6), (float("nan"), 6), (True, 4)],
    ],
)
def test_a_number_falls_into_its_doubling_and_none_into_a_slot_of_its_own(number, slot):
    assert NUMBERS.read({"x": [number]}).tolist() == [[slot]]


def test_fields_never_share_a_slot_and_all_slots_are_counted():
    slots = SPEC.read(columns(500))
    assert slots.shape == (500, 4)
    assert SPEC.slots == 2 * 7 + 3 + 5
    for field, (first, last) in enumerate([(0, 7), (7, 14), (14, 17), (17, 22)]):
        assert ((slots[:, field] >= first) & (slots[:, field] < last)).all()
        assert len(set(slots[:, field].tolist())) > 1


def test_an_impression_is_read_alike_alone_and_among_others():
    """What others were shown must not move a bin or a hash: one person could not be bounded then."""
    shown = columns(40)
    together = SPEC.read(shown)
    for row in range(40):
        assert SPEC.read({name: [values[row]] for name, values in shown.items()}).tolist() == [together[row].tolist()]


def test_a_known_value_has_its_slot_and_all_others_share_the_last():
    brands: list[object] = ["7", 7, "acme", "Acme", None, "", "new"]
    slots = WORDS.read({"brand": brands, "maker": [None, "", "x", 0, "y", "", "z"]})
    assert slots[:, 0].tolist() == [0, 0, 1, 2, 2, 2, 2]
    assert slots[:, 1].tolist() == [3, 3, 4, 4, 4, 3, 4]


def test_public_people_say_which_values_have_slots():
    shown: dict[str, list[object]] = {"x": [1] * 7, "brand": ["b", "a", "a", None, "b", None, "rare"], "other": [0] * 7}
    spec = ClickSpec.from_public(shown, numbers=["x"], categories=["brand"], number_bins=3, least_seen=2)
    assert spec == ClickSpec(("x",), 3, (Category("brand", ("", "a", "b")),))
    assert spec.names == ("x", "brand")
    some = ClickSpec.from_public(shown, numbers=[], categories=["brand"], number_bins=3, least_seen=3)
    assert some.categories == (Category("brand", ()),)
    with pytest.raises(ConfigError, match="least_seen=0: expected >= 1"):
        ClickSpec.from_public(shown, numbers=[], categories=["brand"], number_bins=3, least_seen=0)
    with pytest.raises(DataError, match="no column 'maker', which the head reads"):
        ClickSpec.from_public(shown, numbers=[], categories=["maker"], number_bins=3, least_seen=1)


def test_nothing_at_all_is_read_as_nothing():
    assert SPEC.read({name: [] for name in columns(1)}).shape == (0, 4)


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ({"price": [1], "score": [1], "device": ["x"]}, "no column 'brand', which the head reads"),
        (columns(3) | {"score": [1.0]}, "columns of different lengths; expected one value an impression in each"),
        (columns(2) | {"score": [1.0, "two"]}, "column 'score': expected numbers, or nothing where there is none"),
        (columns(2) | {"score": [1.0, [2]]}, "column 'score': expected numbers, or nothing where there is none"),
    ],
)
def test_impressions_that_cannot_be_read_are_refused(shown, message):
    with pytest.raises(DataError, match=message):
        SPEC.read(shown)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numbers": (), "categories": ()}, r"fields \[\]: expected at least one, and each once"),
        ({"numbers": ("x", "brand")}, "expected at least one, and each once"),
        ({"categories": (Category("brand", ("a", "a")),)}, "field 'brand': a value is there twice; expected each once"),
        ({"number_bins": 0}, "number_bins=0: expected a whole number >= 1"),
        ({"number_bins": True}, "number_bins=True: expected a whole number >= 1"),
        ({"number_bins": 2.0}, r"number_bins=2\.0: expected a whole number >= 1"),
    ],
)
def test_rules_that_make_no_sense_are_refused(changes, message):
    values = {"numbers": ("x",), "categories": (Category("brand", ("a",)),), "number_bins": 3}
    with pytest.raises(ConfigError, match=message):
        ClickSpec(**(values | changes))


def test_digest_names_the_rules():
    assert SPEC.digest() == replace(SPEC).digest()
    fewer = (SPEC.categories[0], Category("brand", ("", "brand 0")))
    others = [replace(SPEC, numbers=("score", "price")), replace(SPEC, number_bins=4), replace(SPEC, categories=fewer)]
    assert len({SPEC.digest(), *(other.digest() for other in others)}) == 4


def test_impressions_are_grouped_by_whom_they_were_shown_to():
    slots = np.arange(10).reshape(5, 2)
    grouped = Impressions.by_person(["b", "a", "b", "c", "a"], slots, np.array([1, 0, 0, 1, 1]))
    assert grouped.offsets.tolist() == [0, 2, 4, 5]
    assert grouped.slots[:, 0].tolist() == [2, 8, 0, 4, 6]
    assert grouped.clicked.tolist() == [False, True, True, False, True]
    assert len(grouped) == 3
    assert len(Impressions.by_person([], np.zeros((0, 2), np.int64), np.zeros(0))) == 0


def test_subset_keeps_people_whole_and_in_the_order_asked():
    everyone = Impressions(np.array([0, 2, 2, 3]), np.array([[1], [2], [3]]), np.array([True, False, True]))
    some = everyone.subset(np.array([2, 1, 0]))
    assert some.offsets.tolist() == [0, 1, 1, 3]
    assert some.slots.tolist() == [[3], [1], [2]]
    assert some.clicked.tolist() == [True, True, False]
    assert len(everyone.subset(np.array([], np.int64))) == 0


@pytest.mark.parametrize(
    ("offsets", "message"),
    [([0, 2], "do not fit together"), ([1, 3], "do not fit together"), ([], "do not fit"), ([0, 3, 1, 3], "decrease")],
)
def test_offsets_that_do_not_fit_are_refused(offsets, message):
    with pytest.raises(DataError, match=message):
        Impressions(np.array(offsets, np.int64), np.zeros((3, 1), np.int64), np.zeros(3, bool))
