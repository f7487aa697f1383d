import pytest

from fedrec.data.cleaning import clean
from fedrec.data.quality import Bar, check


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "shop.csv"
    lines = ["user_id,item_id,timestamp,event,title"]
    lines += [f"u,i{n},{1_300_000_000 + n * 86_400},view,Title {n}" for n in (0, 1, 2, 0, 0, 3)]
    lines += ["v,i0,1300000000,purchase,Title 0", "v,i1,1300000001,,Title 1", ",i1,1300000001,view,Title 1"]
    path.write_text("\n".join(lines))
    return check(clean(path, columns={}, catalogue_columns={}))


def test_facts_are_counted_over_the_rows_kept(report):
    assert (report.rows_read, report.rows_kept) == (9, 6)  # one without a person, two doubles of u's i0
    assert (report.people, report.items, report.catalogue_items) == (2, 4, 4)
    assert (report.first, report.last) == ("2011-03-13T07:06:40+00:00", "2011-03-16T07:06:40+00:00")
    assert report.event_types == {"view": 4, "(none)": 1, "purchase": 1}
    assert report.events_per_person == {"min": 2, "median": 3.0, "mean": 3.0, "max": 4}
    assert report.people_with_four == 1
    assert report.history_lengths == [Bar("1", 0), Bar("2-3", 1), Bar("4-7", 1)]
    assert sum(bar.count for bar in report.timeline) == 6


def test_repeats_are_shares_of_events(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("user_id,item_id,timestamp\nu,a,1\nu,a,2\nu,b,3\nu,a,4\nv,a,5\n")
    report = check(clean(path, columns={}, catalogue_columns={}))
    assert report.repeat_share == pytest.approx(2 / 5)
    assert report.immediate_repeat_share == pytest.approx(1 / 5)
    assert report.people_with_four == 0  # three are left of four once the repeat is merged


def test_positions_have_no_span(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("user_id,item_id,timestamp\nu,a,0\nu,b,1\n")
    report = check(clean(path, columns={}, catalogue_columns={}))
    assert (report.is_clock, report.first, report.last, report.timeline) == (False, None, None, [])


def test_a_time_beyond_every_calendar_is_reported_not_crashed_on(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(f"user_id,item_id,timestamp\nu,a,1\nu,b,{10**17}\n")
    report = check(clean(path, columns={}, catalogue_columns={}))
    assert report.last == f"{10**17} s"


def test_every_question_is_always_answered_under_the_same_names(report):
    assert [finding.name for finding in report.findings] == [
        "items_without_catalogue_row",
        "missing_titles",
        "near_duplicate_titles",
        "suspicious_people",
        "suspicious_prices",
        "time_disorder",
        "sorted_by_item",
    ]
