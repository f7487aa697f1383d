"""Runs that several files look at, made once."""

import pytest

from tests.tiny_run import LEARNING, Bench, Outcome


@pytest.fixture(scope="session")
def private_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Outcome]:
    """A finished run with privacy and all references, and what ``--json`` printed."""
    bench = Bench.at(tmp_path_factory.mktemp("private"))
    return bench, bench.simulate("--compare", "--json")


@pytest.fixture(scope="session")
def some_asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Outcome]:
    """A finished private run in which two of four clients are asked each round, and what it printed for a person."""
    bench = Bench.at(tmp_path_factory.mktemp("some"), {"federation.clients_per_round": 2})
    return bench, bench.simulate()


@pytest.fixture(scope="session")
def bare_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Outcome]:
    """A finished run without privacy, and what it printed for a person."""
    bench = Bench.at(tmp_path_factory.mktemp("bare"))
    return bench, bench.simulate("--no-dp")


@pytest.fixture(scope="session")
def counted_run(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A finished run whose clients counted pairs too, exactly; what it publishes has every shared part of a score."""
    counting = {"statistics.noise_share": 0.5, "statistics.weight": 1.0}
    bench = Bench.at(tmp_path_factory.mktemp("counted"), LEARNING | counting)
    assert bench.simulate("--no-dp").exit_code == 0
    return bench
