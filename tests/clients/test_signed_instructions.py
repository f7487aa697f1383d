"""An instruction that reaches a client is no proof that the server sent it: attacks on the real app and merchant."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MessageType

import clients.merchant
import clients.training
from clients.app import build_app
from clients.instructions import Desk, check_signed
from clients.merchant import load_merchant
from fedrec.agreement import read_agreement
from fedrec.privacy.policy import load_policy, write_policy
from fedrec.runfolder import server_key_path
from fedrec.signed import LIFETIME_S, SKEW_S
from fedrec.signing import Purpose, SigningKey
from fedrec.wire import Address, Instruction, Receipt, Refusal
from fedrec.workspace import ledger_files, ledger_of
from tests.tiny_federation import NODE, SERVER, context_of, sent, signed
from tests.tiny_ranker import histories, instruction, open_plan, private_plan, run_folder, start_arrays

PEOPLE = histories(5, 9, 3, 14, 2, 7, 6, 8)
CLIENTS = [np.array([0, 3, 4, 6]), np.array([1, 2, 5, 7])]
NOW = 1_800_000_000
UNTIL = NOW + LIFETIME_S
TRAIN, EVALUATE = MessageType.TRAIN, MessageType.EVALUATE
METRICS = {"metrics": ("ndcg@10", "hr@10"), "metrics_every": 2}


@pytest.fixture(params=["private", "open"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """With a policy that pins the server's key, and without privacy, where the agreement does."""
    releases = {"metric_releases": 2}
    private = request.param == "private"
    plan = private_plan(**releases, metric_noise_multiplier=5.0) if private else open_plan(**releases)
    run_folder(tmp_path / "run", PEOPLE, CLIENTS, plan=plan, **METRICS)
    return tmp_path / "run"


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each time anyone's history is trained on or measured."""
    times: list[str] = []
    for place, name in ((clients.merchant, "private_direction"), (clients.training, "person_metrics")):
        real = getattr(place, name)

        def noted(*arguments: Any, _name: str = name, _real: Callable[..., Any] = real, **how: Any) -> Any:
            times.append(_name)
            return _real(*arguments, **how)

        monkeypatch.setattr(place, name, noted)
    return times


def _key(run: Path) -> SigningKey:
    return SigningKey.load(server_key_path(run))


def _ask(run: Path, *, round_index: int = 2, **changes: Any) -> Instruction:
    agreed = read_agreement(run)
    return replace(instruction(agreed, start_arrays(agreed), round_index=round_index), **changes)


def _address(**changes: Any) -> Address:
    return Address(TRAIN, NODE, UNTIL)._replace(**changes)


def _signed(run: Path, asked: Instruction | None = None, **changes: Any) -> Instruction:
    """As the run's server signs it at ``NOW``."""
    return signed(asked or _ask(run), key=_key(run), address=_address(**changes))


def _answer(run: Path, message: Message, *, now: float = NOW) -> Message:
    """What the real client app answers over the real merchant."""
    return build_app(lambda _: load_merchant(run, 0), clock=lambda: now)(message, context_of(0))


def _ledger(run: Path) -> tuple[int, bytes, bytes]:
    """Length of the ledger, its head, and its witness file."""
    ledger = ledger_of(run, 0, read_agreement(run).plan)
    return len(ledger.entries()), ledger.head().encode(), ledger_files(run, 0).witness.read_bytes()


def _refused(run: Path, touched: list[str], message: Message, *, now: float = NOW) -> str:
    """The word of the refusal, after a look at what it must have left alone."""
    before, trained = _ledger(run), len(touched)
    reply = _answer(run, message, now=now)
    assert reply.has_error()
    assert _ledger(run) == before
    assert len(touched) == trained
    return reply.error.reason


def test_what_the_server_signed_is_done(run: Path, touched: list[str]) -> None:
    assert _answer(run, sent(_signed(run))).has_content()
    assert _answer(run, sent(_signed(run, kind=EVALUATE), kind=EVALUATE)).has_content()
    assert touched == ["private_direction", "person_metrics"]
    assert _ledger(run)[0] > 4


@pytest.mark.parametrize("signature", [None, "", "d" * 128, "d" * 126])
def test_unsigned_instruction_is_refused(run: Path, touched: list[str], signature: str | None) -> None:
    message = sent(_signed(run))
    header = dict(message.content["header"]) | {"signature": signature}
    kept = {name: value for name, value in header.items() if value is not None}
    message.content["header"] = ConfigRecord(kept)
    assert _refused(run, touched, message) == ("E_PLAN" if signature == "d" * 128 else "E_SCHEMA")


def test_instruction_signed_by_another_key_is_refused(run: Path, touched: list[str]) -> None:
    forged = signed(_ask(run), key=SERVER, address=_address())
    assert _refused(run, touched, sent(forged)) == "E_PLAN"


def test_instruction_for_another_client_is_refused(run: Path, touched: list[str]) -> None:
    others = _signed(run, recipient=NODE + 1)
    assert _refused(run, touched, sent(others)) == "E_PLAN"
    readdressed = replace(others, address=_address())
    assert _refused(run, touched, sent(readdressed)) == "E_PLAN"


def test_signature_of_another_round_is_refused(run: Path, touched: list[str]) -> None:
    other = _signed(run, _ask(run, round_index=1))
    assert _refused(run, touched, sent(replace(other, round_index=2))) == "E_PLAN"


def test_adapter_that_was_altered_in_one_float_is_refused(run: Path, touched: list[str]) -> None:
    asked = _signed(run)
    name = next(iter(asked.adapter))
    values = asked.adapter[name].copy()
    values.flat[0] = np.nextafter(values.flat[0], np.float32(np.inf))
    assert _refused(run, touched, sent(replace(asked, adapter=asked.adapter | {name: values}))) == "E_PLAN"


def _receipt(run: Path, key: SigningKey) -> Receipt:
    head = ledger_of(run, 0, read_agreement(run).plan).head()
    return Receipt(head, key.sign(bytes.fromhex(head), purpose=Purpose.LEDGER_HEAD))


def test_receipt_that_was_altered_added_or_removed_is_refused(run: Path, touched: list[str]) -> None:
    _answer(run, sent(_signed(run, _ask(run, round_index=1))))
    receipt = _receipt(run, _key(run))
    asked = _signed(run, _ask(run, receipt=receipt))
    other = Receipt("0" * 64, receipt.signature)
    assert _refused(run, touched, sent(replace(asked, receipt=other))) == "E_PLAN"
    assert _refused(run, touched, sent(replace(asked, receipt=None))) == "E_PLAN"
    assert _refused(run, touched, sent(replace(_signed(run), receipt=receipt))) == "E_PLAN"
    assert _answer(run, sent(asked)).has_content()


def test_receipt_under_another_signature_is_refused_by_the_ledger(run: Path, touched: list[str]) -> None:
    """Its head is covered by the instruction's signature, its own signature speaks for itself."""
    _answer(run, sent(_signed(run, _ask(run, round_index=1))))
    asked = _signed(run, _ask(run, receipt=_receipt(run, SERVER)))
    assert _refused(run, touched, sent(asked)) == "E_BUDGET"


@pytest.mark.parametrize(
    ("now", "word"),
    [
        (UNTIL + SKEW_S + 1, "E_PLAN"),
        (UNTIL + SKEW_S, None),
        (UNTIL, None),
        (NOW - SKEW_S, None),
        (NOW - SKEW_S - 1, "E_PLAN"),  # this clock is behind: it could not tell what has expired
        (NOW + 86_400, "E_PLAN"),
        (NOW - 86_400, "E_PLAN"),
    ],
)
def test_expired_instruction_is_refused(run: Path, touched: list[str], now: int, word: str | None) -> None:
    message = sent(_signed(run))
    if word is None:
        assert _answer(run, message, now=now).has_content()
    else:
        assert _refused(run, touched, message, now=now) == word


def test_expiry_cannot_be_moved(run: Path, touched: list[str]) -> None:
    late = replace(_signed(run), address=_address(expires_at=UNTIL + 10_000))
    assert _refused(run, touched, sent(late), now=NOW + 10_000) == "E_PLAN"


@pytest.mark.parametrize(("asked_to", "came_to"), [(TRAIN, EVALUATE), (EVALUATE, TRAIN)])
def test_instruction_to_train_is_none_to_measure_nor_the_other_way(
    run: Path, touched: list[str], asked_to: str, came_to: str
) -> None:
    asked = _signed(run, kind=asked_to)
    assert _refused(run, touched, sent(asked, kind=came_to)) == "E_PLAN"
    renamed = replace(asked, address=_address(kind=came_to))
    assert _refused(run, touched, sent(renamed, kind=came_to)) == "E_PLAN"


def test_old_round_played_again_is_refused(run: Path, touched: list[str]) -> None:
    """Everything about it is right, even the time; it was answered, and another round since."""
    old = sent(_signed(run, _ask(run, round_index=1)))
    for message in (old, sent(_signed(run))):
        assert _answer(run, message).has_content()
    assert _refused(run, touched, old) == "E_REPLAY"
    assert _refused(run, touched, old, now=UNTIL + SKEW_S + 1) == "E_PLAN"


def test_newest_round_played_again_brings_the_same_bytes_and_costs_nothing(run: Path, touched: list[str]) -> None:
    first = _answer(run, sent(_signed(run)))
    charged = _ledger(run)
    again = _answer(run, sent(_signed(run, expires_at=UNTIL + 60)), now=NOW + 60)
    arrays = [{name: array.data for name, array in reply.content["update"].items()} for reply in (first, again)]
    assert arrays[0] == arrays[1]
    assert dict(first.content["header"]) == dict(again.content["header"])
    assert len(touched) == 1
    assert _ledger(run) == charged


def test_policy_that_pins_another_server_than_the_agreement_refuses_both(
    tmp_path: Path, touched: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """An agreement comes from the server's side; the pinned key does not."""
    run = tmp_path / "run"
    run_folder(run, PEOPLE, CLIENTS, plan=private_plan())
    policy = load_policy(run / "policy.toml")
    write_policy(policy.model_copy(update={"server_key": SERVER.public}), run / "policy.toml")
    assert load_merchant(run, 0).server_key == SERVER.public
    assert _refused(run, touched, sent(_signed(run))) == "E_PLAN"
    with caplog.at_level("DEBUG", logger="clients.app"):
        assert _refused(run, touched, sent(signed(_ask(run), address=_address()))) == "E_PLAN"
    assert f"policy server_key: '{_key(run).public}', allowed '{SERVER.public}'" in caplog.text


def test_shipped_app_reads_the_real_clock(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_folder(run, PEOPLE, CLIENTS, plan=private_plan())
    app = build_app(lambda _: load_merchant(run, 0))
    assert app(sent(_signed(run, expires_at=int(time.time()) - SKEW_S - 5)), context_of(0)).error.reason == "E_PLAN"
    assert app(sent(_signed(run, expires_at=int(time.time()) + 5)), context_of(0)).has_content()


@pytest.mark.parametrize(
    ("changes", "now", "said"),
    [
        ({"address": None}, NOW, "the instruction is not signed by the pinned server"),
        ({"signature": "0" * 128}, NOW, "the instruction is not signed by the pinned server"),
        ({"recipient": 6}, NOW, "the instruction is signed for another client"),
        ({"kind": EVALUATE}, NOW, "the instruction is signed to evaluate, and came to train"),
        ({}, UNTIL + 301, r"the instruction has expired 301 s ago; is this clock right\?"),
        ({}, NOW - 301, r"the instruction expires only in 3901 s; is this clock right\?"),
    ],
)
def test_each_refusal_tells_its_own_side_what_is_wrong(changes: dict[str, Any], now: int, said: str) -> None:
    fields = {name: value for name, value in changes.items() if name in Address._fields}
    asked = replace(signed(address=_address(**fields)), **{k: v for k, v in changes.items() if k not in fields})
    with pytest.raises(Refusal, match=f"E_PLAN: {said}"):
        check_signed(asked, Desk(NODE, lambda: now), kind=TRAIN, server_key=SERVER.public)
