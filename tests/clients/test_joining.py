"""Joining makes a whole folder or none, whatever the moment at which it is killed."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import clients.joining
from clients.joining import Wishes, join
from fedrec.errors import DataError, PrivacyError, RunError
from fedrec.privacy.policy import Policy
from tests.tiny_invitation import PEOPLE, Operator, joined, write_events
from tests.tiny_ranker import private_plan
from tests.tiny_run import ROOT

KILLS = 20
KILLER = """
import os, shutil, signal, sys, time
from pathlib import Path
from clients.joining import Wishes, join
from clients.own import open_own
from clients.settings import load_client_settings

invitation, events, out = map(Path, sys.argv[1:4])
kills = int(sys.argv[4])

def once():
    join(invitation, out, name="shop-7", events=events, columns={}, wishes=Wishes(1))

def begun():
    if not (child := os.fork()):  # before anything here has threads, which a fork would lose
        once()
        os._exit(0)
    return child

started = time.perf_counter()
assert os.waitpid(begun(), 0)[1] == 0
took = time.perf_counter() - started
whole = none = drafts = 0
for kill in range(kills):
    if out.exists():
        shutil.rmtree(out)
    child = begun()
    time.sleep(1.3 * took * kill / kills)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    drafts += any(path.name == f".{out.name}.draft" for path in out.parent.iterdir())
    whole += out.exists()
    none += not out.exists()
    if out.exists():
        opener = os.fork()
        if not opener:
            open_own(load_client_settings(out / "client.toml")).merchant
            os._exit(0)
        assert os.waitpid(opener, 0)[1] == 0
shutil.rmtree(out, ignore_errors=True)
once()
print(whole, none, drafts)
"""


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(tmp_path_factory.mktemp("operator"))


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_nothing_half(operator: Operator, tmp_path: Path) -> None:
    events, out = write_events(tmp_path / "events.csv"), tmp_path / "merchant" / "shop-7"
    words = [str(operator.invitation.folder), str(events), str(out), str(KILLS)]
    done = subprocess.run(
        [sys.executable, "-c", KILLER, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    whole, none, drafts = map(int, done.stdout.split())
    assert whole + none == KILLS
    assert drafts >= KILLS // 4, "no kill came while the folder was being made: the test is too slow to say anything"
    assert [path.name for path in out.parent.iterdir()] == ["shop-7"], "the next one cleans up after the killed"


def test_events_that_are_not_there_are_named_as_they_were_given(operator: Operator, tmp_path: Path) -> None:
    """The folder that is being made has another name until it is whole."""
    with pytest.raises(DataError) as refused:
        joined(operator, tmp_path / "shop-7", events=tmp_path / "none.csv")
    assert str(refused.value).startswith(f"{tmp_path / 'none.csv'}: no such file; ")
    assert not list(tmp_path.iterdir())


def test_wishes_are_compared_with_the_plan_before_anything_is_made(operator: Operator, tmp_path: Path) -> None:
    events = write_events(tmp_path / "events.csv")
    with pytest.raises(PrivacyError, match=r"--max-epsilon 7\.999: the federation asks for more\. Each person"):
        joined(operator, tmp_path / "shop", events=events, max_epsilon=7.999)
    with pytest.raises(PrivacyError, match="--max-epsilon nan: the federation asks for more"):
        joined(operator, tmp_path / "shop", events=events, max_epsilon=float("nan"))
    assert not (tmp_path / "shop").exists()
    assert joined(operator, tmp_path / "shop", events=events, max_epsilon=8.0).policy.max_epsilon == 8.0


def test_more_people_than_the_plan_provides_for_do_not_join(tmp_path: Path) -> None:
    operator = Operator(tmp_path, private_plan(batch_cap=4, max_people=PEOPLE - 1))
    with pytest.raises(PrivacyError, match=f"max_people={PEOPLE - 1}: there are more people here than the plan allows"):
        joined(operator, tmp_path / "shop", events=write_events(tmp_path / "events.csv"))


@pytest.mark.parametrize(("trust", "sharers"), [("distributed", 3), ("central", 1)])
def test_a_federation_of_another_trust_is_not_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trust: str, sharers: int
) -> None:
    operator = Operator(tmp_path, private_plan(trust=trust, noise_sharers=sharers))
    events = write_events(tmp_path / "events.csv")
    with pytest.raises(PrivacyError, match=rf"policy trust: '{trust}', allowed 'local'"):
        joined(operator, tmp_path / "shop", events=events)
    lenient = partial(Policy.for_plan, trust=trust)  # as if its owner had written it into policy.toml
    monkeypatch.setattr(clients.joining.Policy, "for_plan", lenient)
    with pytest.raises(PrivacyError, match=rf"privacy\.trust={trust}: needs .*: simulation only; use local"):
        joined(operator, tmp_path / "shop", events=events)
    assert not (tmp_path / "shop").exists()


def test_an_invitation_that_was_spoiled_on_the_way_is_not_joined(tmp_path: Path) -> None:
    operator = Operator(tmp_path)
    (operator.invitation.folder / "ca.crt").write_text("somebody else's")
    with pytest.raises(RunError, match=r"ca\.crt: was changed since the invitation was made"):
        join(
            operator.invitation.folder,
            tmp_path / "shop",
            name="shop",
            events=write_events(tmp_path / "events.csv"),
            columns={},
            wishes=Wishes(1),
        )
    assert not (tmp_path / "shop").exists()
