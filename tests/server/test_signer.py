"""Every instruction of a round goes out signed for one node, at one moment."""

from typing import Any

from flwr.app import Message
from flwr.clientapp import ClientApp

import server.asking
from fedrec.signed import LIFETIME_S, arrays_digest, is_signed_by
from fedrec.signing import Purpose, is_signed
from fedrec.wire import instruction_from_record
from server.rounds import Conduct, run_rounds
from server.signer import Signer
from server.strategy import initial_state
from simulations.local_grid import LocalGrid
from tests.tiny_federation import SCHEMA, SERVER, arrays, client_app, federation, head_of, instruction


def test_each_node_gets_the_instruction_under_its_own_address_and_the_same_moment() -> None:
    signer, asked = Signer(SERVER, clock=lambda: 1000.9), instruction()
    digest = arrays_digest(asked.adapter)
    sent = [
        signer.addressed(asked, kind="evaluate", recipient=node, head=head, adapter_digest=digest)
        for node, head in ((5, None), (6, head_of(1, 2)))
    ]
    assert [own.address for own in sent] == [("evaluate", node, 1000 + LIFETIME_S) for node in (5, 6)]
    assert all(is_signed_by(SERVER.public, own) for own in sent)
    assert sent[0].receipt is None
    receipt = sent[1].receipt
    assert receipt is not None
    assert receipt.head == head_of(1, 2)
    head = bytes.fromhex(receipt.head)
    assert is_signed(head, receipt.signature, public=SERVER.public, purpose=Purpose.LEDGER_HEAD)


def _noted(messages: list[Message]) -> ClientApp:
    """The tiny client app, and every message that comes to it."""
    honest, app = client_app(), ClientApp()

    @app.train()
    def train(message: Message, context: Any) -> Message:
        messages.append(message)
        return honest(message, context)

    return app


def test_messages_of_a_round_are_signed_one_by_one_and_their_arrays_digested_once(monkeypatch: Any) -> None:
    digested, messages = [], list[Message]()

    def noted(values: Any) -> str:
        digested.append(1)
        return arrays_digest(values)

    monkeypatch.setattr(server.asking, "arrays_digest", noted)
    run_rounds(
        LocalGrid(_noted(messages), clients=5),
        federation(rounds=2),
        state=initial_state(arrays(), SCHEMA, measures={}),
        conduct=Conduct(Signer(SERVER)),
        save=lambda state: None,
    )
    assert len(digested) == 2
    assert len(messages) == 10
    for message in messages:
        asked = instruction_from_record(message.content, schema=SCHEMA)
        assert asked.address is not None
        assert asked.address[:2] == (message.metadata.message_type, message.metadata.dst_node_id)
        assert is_signed_by(SERVER.public, asked)


def test_reply_comes_only_from_clients_that_pin_this_servers_key(tmp_path: Any) -> None:
    from fedrec.signing import SigningKey

    state = run_rounds(
        LocalGrid(client_app(), clients=5),
        federation(rounds=1),
        state=initial_state(arrays(), SCHEMA, measures={}),
        conduct=Conduct(Signer(SigningKey.create(tmp_path / "other.key"))),
        save=lambda state: None,
    )
    assert state.records[0].reasons == {"E_PLAN": 5}
    assert state.records[0].void
