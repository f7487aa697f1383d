"""What a run prints at the end: the report's own words, whole, and nothing that a reader cannot copy."""

import copy
import io
import json
import re
from itertools import chain
from pathlib import Path

import pytest
from rich.console import Console

from fedrec.errors import RunError
from fedrec.report import words
from fedrec.report.inputs import check_inputs
from fedrec.report.page import build_report
from fedrec.report.terminal import print_summary
from tests.fedrec.report.conftest import with_news


def printed(run, folder, *, width=80):
    """Text of the terminal after ``build_report``, with every run of white space as one blank."""
    build_report(*run, folder=folder)
    return text_of(run[0], folder, width=width)


def text_of(summary, folder, *, width=80):
    out = io.StringIO()
    print_summary(summary, folder=folder, console=Console(file=out, width=width, highlight=False))
    return out.getvalue()


def flat(text):
    return re.sub(r"\s+", " ", text)


def line_of(text, label):
    return next(line for line in text.splitlines() if line.strip().startswith(label))


def test_the_verdict_is_that_of_the_page_and_comes_before_the_table(run, tmp_path):
    text = flat(printed(run, tmp_path))
    summary, _, context = check_inputs(*run)
    verdict = words.verdict(summary, context)
    places = [text.index(flat(part)) for part in (verdict.headline, *verdict.sentences, "What a merchant could deploy")]
    assert places == sorted(places)


def test_every_row_has_its_label_and_figures(run, tmp_path):
    text = printed(run, tmp_path, width=160)
    for row in chain(*words.table(check_inputs(*run)[0]).values()):
        cells = re.findall(r"\d\.\d{4}", line_of(text, row.label[:20]))
        assert tuple(cells) == row.cells


def test_only_the_best_of_a_group_and_column_is_starred(run, tmp_path):
    run[0]["metrics"]["local_only"]["hr@10"] = 0.93
    run[0]["metrics"]["federated"]["hr@10"] = 0.92
    text = printed(run, tmp_path)
    assert "0.9300*" in line_of(text, "Each merchant alone")
    assert "0.9200 " in line_of(text, "Federated, as deployed")
    assert line_of(text, "Federated, as deployed").count("*") == 6
    assert "*" not in line_of(text, "Most popular")


def test_the_statement_is_whole_and_so_is_the_price_of_several_clients(run, tmp_path):
    text = flat(printed(run, tmp_path))
    assert run[2]["statement"] in text
    assert "several clients, at the same delta: 2 clients 12.31, 3 clients 16.02, 5 clients 22.80." in text
    assert words.STAMP not in text.replace("adds no noise, NOT PRIVATE", "")


def test_a_run_without_noise_is_stamped_first_in_the_rows_and_instead_of_a_guarantee(open_run, tmp_path):
    text = printed(open_run, tmp_path)
    assert text.split("\n")[1].strip() == words.STAMP
    assert f"Privacy: {words.STAMP}" in text
    lines = text.splitlines()
    row = lines.index(line_of(text, "Federated, as deployed"))
    assert words.STAMP in lines[row] + lines[row + 1]
    assert open_run[2]["statement"] in flat(text)
    assert "psilon" not in text


def test_paths_and_commands_stand_on_one_line_however_narrow_the_terminal(run, tmp_path):
    folder = tmp_path / ("a folder with a long name and blanks, " * 4)
    folder.mkdir()
    text = printed(run, folder, width=40)
    assert f"Report        {folder}/report.html" in text.splitlines()
    assert f"Try it        fedrec serve '{folder}' --open" in text.splitlines()
    assert f"Measure again fedrec simulate --out '{folder}' --resume" in text.splitlines()
    assert any(line.endswith(f"--config '{folder}/config.toml' --out NEW_FOLDER") for line in text.splitlines())


def test_brackets_in_a_text_are_printed_not_obeyed(run, tmp_path):
    folder = tmp_path / "[bold]run[red]"
    folder.mkdir()
    run[2]["statement"] = "Each [red]person[/red] counts."
    text = printed(run, folder)
    assert "Each [red]person[/red] counts." in text
    assert f"{folder}/report.html" in text


def test_it_prints_on_stdout_alone_and_fits_eighty_columns(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    build_report(*run, folder=tmp_path)
    print_summary(run[0], folder=Path(tmp_path))
    shown = capsys.readouterr()
    assert "Federation helped" in shown.out
    assert shown.err == ""
    table = shown.out[: shown.out.index("Privacy")]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 80


def test_a_missing_report_is_named(run, tmp_path):
    with pytest.raises(RunError, match=r"report\.json: not there; the run writes it last"):
        text_of(run[0], tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"summary": {}}', b"\xff\xfe\x00"])
def test_a_damaged_report_is_named(run, tmp_path, content):
    (tmp_path / "report.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RunError, match=r"report\.json: damaged; write it again with"):
        text_of(run[0], tmp_path)


def test_the_report_of_another_run_is_refused(run, tmp_path):
    build_report(*run, folder=tmp_path)
    other = copy.deepcopy(run[0])
    other["seed"] += 1
    with pytest.raises(RunError, match=r"report\.json: tells of another run than the summary"):
        text_of(other, tmp_path)


def test_a_context_that_does_not_fit_is_named(run, tmp_path):
    build_report(*run, folder=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    del report["context"]["statement"]
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(RunError, match="report context: statement"):
        text_of(run[0], tmp_path)


def test_new_products_and_merchants_have_a_sentence_each(run, tmp_path):
    assert "took no part" not in printed(run, tmp_path)
    with_news(run[0])
    text = flat(printed(run, tmp_path))
    summary = check_inputs(*run)[0]
    assert words.new_products(summary) in text
    assert words.new_merchants(summary) in text
