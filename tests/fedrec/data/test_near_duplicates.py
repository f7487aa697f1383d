from fedrec.data.near_duplicates import near_duplicate_titles

LONG = "hand painted mug with a long description of its colours, its handle and the people who made it"


def find(titles, *, cosine=0.97, max_items=100):
    return near_duplicate_titles(titles, cosine=cosine, max_items=max_items)


def test_the_same_words_in_any_order_case_and_markup_are_one_title():
    pairs, are_all_compared = find(["Red Mug, large", "tea", "<b>large</b> red MUG", "mug"])
    assert pairs == [(0, 2, 1.0)]
    assert are_all_compared


def test_a_slip_of_the_pen_in_a_long_title_is_found():
    pairs, _ = find(["something else", LONG, LONG.replace("colours", "colors")])
    assert [(earlier, later) for earlier, later, _ in pairs] == [(1, 2)]
    assert 0.97 < pairs[0][2] < 1


def test_titles_that_differ_in_a_number_are_variants():
    assert find([LONG + " size 10", LONG + " size 12"])[0] == []
    assert find([LONG + " pack of 2", LONG + " pack of 20"])[0] == []


def test_different_titles_are_not_paired():
    assert find(["white hanging heart", "white hanging star", "cream cupid hearts coat hanger", ""])[0] == []


def test_blank_titles_are_no_pair():
    assert find(["", " ", "!?"])[0] == []


def test_each_later_title_is_named_once_with_its_likest():
    pairs, _ = find(["a b", "b a", "a  b", "B, A"])
    assert pairs == [(0, 1, 1.0), (0, 2, 1.0), (0, 3, 1.0)]


def test_in_a_large_catalogue_only_the_same_words_are_looked_for():
    titles = [LONG, LONG.replace("colours", "colors"), "tea pot", "pot tea"]
    pairs, are_all_compared = find(titles, max_items=2)
    assert pairs == [(2, 3, 1.0)]
    assert not are_all_compared


def test_a_pair_late_in_a_catalogue_is_found():
    fillers = [f"filler {chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)} item" for n in range(1100)]
    pairs, _ = find([*fillers, LONG, LONG.replace("handle", "handles")], max_items=10_000)
    assert [(earlier, later) for earlier, later, _ in pairs if later == 1101] == [(1100, 1101)]


def test_pairs_far_apart_in_a_catalogue_of_many_blocks_are_found():
    fillers = [f"filler {chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)} item" for n in range(2500)]
    pairs, _ = find([LONG, *fillers, LONG.replace("handle", "handles")], max_items=10_000)
    assert [(earlier, later) for earlier, later, _ in pairs if earlier == 0] == [(0, 2501)]
