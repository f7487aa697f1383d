"""The GPU benchmark, tried on a decoder so small that a CPU can do it; a machine without a GPU it lets be."""

import numpy as np
import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import Measured, Size, Way, build, clipped_sum, measure, table
from fedrec.data.histories import Histories

TINY = Size("tiny", width=16, layers=2, heads=2, feed_forward=24, history=5, items=30, dimensions=8, people=3)


def test_ways_of_computing_a_step_are_timed_and_held_against_the_first():
    exact, rough = measure(TINY, [Way("cpu"), Way("cpu", is_bf16=True)], steps=1)
    assert (exact.way, rough.way) == ("cpu, float32", "cpu, bf16")
    assert exact.failed is rough.failed is None
    assert exact.of_first == 1.0
    assert exact.difference == 0.0
    assert rough.updates_per_s > 0
    assert 0.0 < rough.difference < 0.1
    assert exact.parameters == pytest.approx(2 * (4 * 16 * 16 + 3 * 16 * 24), rel=0.03)  # and the norms


def test_a_way_that_fails_leaves_its_reason_and_the_others_their_numbers():
    failed, done = measure(TINY, [Way("nowhere"), Way("cpu")], steps=1)
    assert failed.failed.startswith("RuntimeError: ")
    assert done.updates_per_s > 0


def test_every_person_and_every_part_of_the_adapter_take_part():
    people = Histories.from_lists([[1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11, 12]])
    found = clipped_sum(build(TINY), people, is_bf16=False)
    assert 0 < np.linalg.norm(found) <= 3 * gpu.CLIP_NORM
    assert not np.allclose(found, clipped_sum(build(TINY), people.subset(np.array([0, 1])), is_bf16=False))


def test_real_sizes_are_what_they_are_called():
    for size, expected in zip(gpu.SIZES, (1e8, 1e9), strict=True):
        matrices = size.layers * (4 * size.width**2 + 3 * size.width * size.feed_forward)
        assert matrices == pytest.approx(expected, rel=0.1)


def test_table_has_a_line_for_each_way():
    rows = [Measured("tiny", "cpu, float32", 1_000_000, 2.0, 1.0, 0.0), Measured("tiny", "x", 0, failed="no memory")]
    assert table(rows).splitlines()[2:] == [
        "| tiny (1M) | cpu, float32 | 2 | 1 | 0 |  |  |",
        "| tiny (0M) | x | no memory |  |  |  |  |",
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_without_a_gpu_it_says_so_and_ends_well(capsys):
    assert gpu.main([]) == 0
    assert capsys.readouterr().out == "no CUDA device: skipped\n"
