import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from fedrec.data.cleaning import clean
from fedrec.data.quality import check
from fedrec.data.quality_report import fact_rows, headline, print_report, render_html, render_json, write_report
from fedrec.errors import DataError


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "shop.csv"
    rows = [f"u{p},i{n},{1_300_000_000 + n},view,Title <b>{n}</b> & more" for p in range(3) for n in range(5)]
    path.write_text(
        "\n".join(
            ["user_id,item_id,timestamp,event,title", *rows, "<script>alert(1)</script>,i0,5,cart,x", ",i0,5,view,x"]
        )
    )
    return check(clean(path, columns={}, catalogue_columns={}))


def test_the_page_shows_every_rule_and_every_finding(report):
    page = render_html(report)
    for rule in report.rules:
        assert rule.rule in page
    for finding in report.findings:
        assert finding.title in page
    assert "view" in page
    assert "cart" in page


def test_the_page_needs_nothing_but_a_browser(report):
    page = render_html(report)
    assert "<script" not in page
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", page)
    assert "default-src 'none'" in page
    assert page.count("<html") == 1


def test_what_a_file_says_is_shown_not_run(report):
    page = render_html(replace(report, source="<script>alert(2)</script>"))
    assert "<script" not in page
    assert "Title &lt;b&gt;0&lt;/b&gt; &amp; more" in page


def test_the_json_holds_everything_and_nothing_that_is_not_json(report):
    content = json.loads(render_json(report))
    assert content["rows_read"] == report.rows_read
    assert content["rules"][0] == {"rule": "missing_user", "description": "no person named", "dropped": 1, "kept": 16}
    assert {finding["name"] for finding in content["findings"]} == {finding.name for finding in report.findings}
    assert content["thresholds"]["day_events"] == 1000
    assert render_json(report) == render_json(report)


def test_both_files_are_written_whole(report, tmp_path):
    html, text = write_report(report, tmp_path / "out")
    assert html.read_text(encoding="utf-8") == render_html(report)
    assert json.loads(text.read_text(encoding="utf-8")) == json.loads(render_json(report))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["check.html", "check.json"]


def test_a_folder_that_cannot_be_written_is_an_error(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"check\.html: cannot be written"):
        write_report(report, tmp_path / "file")


def test_the_terminal_shows_the_same_facts_and_swallows_no_brackets(report):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_report(replace(report, source="data[1].csv"), console)
    console.file.close()
    text = console.export_text()
    assert "data[1].csv" in text
    assert "missing_user" in text
    assert "15 of" not in text
    assert "Items without a readable title" in text


def findings_of(report, *severities):
    return [replace(finding, severity=severity) for finding, severity in zip(report.findings, severities, strict=False)]


def test_the_headline_says_the_worst_first(report):
    whole = replace(report, rows_read=1000, rows_kept=1000)
    assert headline(replace(whole, findings=findings_of(report, "ok", "note"))) == "Every row is fit to train on."
    one = replace(whole, rows_kept=999, findings=findings_of(report, "look"))
    assert headline(one).replace("\xa0", " ") == "99.9% of the rows are fit to train on; 1 thing is worth a look."
    assert headline(replace(one, findings=findings_of(report, "look", "problem"))) == (
        "Mend this data before you train on it."
    )


def test_nearly_every_row_is_not_every_row(report):
    nearly = replace(report, rows_read=1_000_000, rows_kept=999_999, findings=[])
    assert headline(nearly) == "99.9% of the rows are fit to train on."


def test_the_share_in_the_headline_is_the_share_on_the_page(report):
    part = replace(report, rows_read=541_909, rows_kept=391_150, findings=[])
    assert headline(part) == "72.2% of the rows are fit to train on."
    assert "of 541,909 read, 72.2%" in render_html(part)
    assert "100.0%" in render_html(replace(part, rows_kept=541_909))


def test_positions_and_a_missing_catalogue_are_said_in_words(report):
    bare = replace(report, first=None, last=None, is_clock=False, timeline=[], catalogue_items=None, event_types={})
    assert ("span", "positions, no clock") in fact_rows(bare)
    page = render_html(bare)
    assert "Timestamps are positions in a history" in page
    assert "no catalogue" in page
