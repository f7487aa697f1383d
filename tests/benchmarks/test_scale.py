from dataclasses import asdict

import pytest

from benchmarks import scale
from benchmarks.scale_run import Case, measure_ranking, measure_rounds, prepare
from benchmarks.scale_tables import MARKS, cpu_s, drift, line_through, sections, spread
from fedrec.runfolder import write_json


def point(case, *, seconds=(9.0, 1.0, 3.0, 2.0), memory=(50.0, 100.0, 100.0, 100.0)):
    rounds = [
        {"wall_s": s, "cpu_s": s, "bytes_up": 4_000, "anonymous_mb": m, "mapped_mb": 7.0}
        for s, m in zip(seconds, memory, strict=True)
    ]
    return {"case": asdict(case), "rounds": rounds, "parameters": 832, "prepared_bytes": 10**6, "bytes": 10**7}


def test_a_small_federation_is_measured_and_devices_that_were_not_asked_get_no_ledger(tmp_path):
    case = Case(5, 2, rounds=1)
    prepare(case, tmp_path / "run")
    found = measure_rounds(case, tmp_path / "run")
    assert len(found["rounds"]) == 2
    assert all(each["cpu_s"] > 0 and each["anonymous_mb"] > 0 and each["bytes_up"] > 0 for each in found["rounds"])
    assert 2 <= len(list((tmp_path / "run" / "ledger").glob("*.sqlite"))) <= 4


def test_everybody_is_ranked(tmp_path):
    case = Case(1, 0, people=7, items=300)
    prepare(case, tmp_path / "run")
    found = measure_ranking(case, tmp_path / "run")
    assert found["cpu_s"] > 0
    assert found["highest_mb"] >= found["before_mb"] > 0


def test_a_point_that_is_there_is_not_measured_again(tmp_path, monkeypatch):
    there = tmp_path / "5.json"
    there.write_text("{}")
    monkeypatch.setattr(scale, "_apart", lambda *_: pytest.fail("measured again"))
    scale.measure(Case(5, 2), there)
    assert there.read_text() == "{}"


def test_figures_by_hand():
    assert cpu_s(point(Case(5, 2))) == 2.0
    assert line_through([1, 2, 3], [3.0, 5.0, 7.0]) == pytest.approx((2.0, 1.0, 1.0))
    assert line_through([0, 1, 2, 3], [0.0, 1.0, 0.0, 1.0])[2] == pytest.approx(0.2)
    assert spread([2.0, 2.2, 2.1]) == pytest.approx(0.1)
    assert drift(point(Case(5, 2), seconds=[1.0] * 20, memory=[1.0, 1.0, 95.0, *[100.0] * 16, 104.0])) == pytest.approx(
        (-0.05, 0.04)
    )


def test_the_document_is_written_from_the_points_that_are_there(tmp_path):
    for name in ("50", "100", "200"):
        (tmp_path / "sampled").mkdir(exist_ok=True)
        asked = int(name)
        write_json(
            tmp_path / "sampled" / f"{name}.json",
            point(Case(100_000, asked), seconds=[9.0, asked / 50, asked / 50, asked / 50]),
        )
    (tmp_path / "scale.md").write_text(f"by hand\n{MARKS[0]}\n{MARKS[1]}\n")
    scale.render(tmp_path, tmp_path)
    written = (tmp_path / "scale.md").read_text()
    assert written.startswith("by hand\n")
    assert "20.0 ms a client and 0.00 s a round, R² 1.0000" in written
    assert "| 200 | 4.00 | 20.0 |" in written
    assert (tmp_path / "images" / "scale.svg").exists()


def test_without_a_point_nothing_was_measured():
    assert sections({}) == "Not measured yet."
