"""A merchant's doctor finds what would stop the client, before it is started; on a real merchant's folder."""

import hashlib
import re
import shutil
import ssl
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clients.app import build_app
from clients.doctoring import client_checks
from clients.joining import Wishes, join
from clients.resident import link_of, stay
from clients.serving.store import EventStore
from clients.settings import load_client_settings
from fedrec.agreement import read_agreement
from fedrec.doctor import Finding, examine
from fedrec.errors import ConfigError
from fedrec.invitation import read_invitation
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.policy import load_policy, write_policy
from tests.fleet_server import Fleet, served
from tests.tiny_invitation import Operator, joined, write_events
from tests.tiny_ranker import open_plan


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory):
    """A merchant who has just joined a federation whose server answers; its folder's parent."""
    folder = tmp_path_factory.mktemp("fresh")
    operator, fleet = Operator(folder / "operator"), Fleet()
    fleet.answers["pull-messages"] = lambda body: 401
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(operator.keys / "tls.crt", operator.keys / "tls.key")
    with served(fleet, tls=tls) as link:
        invitation = operator.invite(folder / "invitation", link.address)
        (folder / "shops").mkdir()
        events = write_events(folder / "shops" / "events.csv")
        joined(operator, folder / "shops" / "shop-7", events=events, invitation=invitation)
        yield folder / "shops"


@pytest.fixture
def shop(fresh: Path, tmp_path: Path) -> Path:
    """A copy of it, to spoil."""
    return Path(shutil.copytree(fresh, tmp_path / "copy")) / "shop-7"


def found(shop: Path) -> dict[str, Finding]:
    """Findings by check; the worst of each."""
    findings = examine(client_checks(load_client_settings(shop / "client.toml"), now=datetime.now(UTC)))
    return {one.check: one for one in sorted(findings, key=lambda one: ["ok", "warning", "failed"].index(one.state))}


def test_a_store_is_opened_and_its_ledger_compared(shop):
    config, store = shop / "client.toml", shop.parent / "shop.sqlite"
    config.write_text(config.read_text().replace('events = "../events.csv"', 'store = "../shop.sqlite"'))
    missing = found(shop)["events"]
    assert (missing.state, missing.mend) == ("failed", "make one with `fedrec store import`")
    assert missing.said.endswith("shop.sqlite: no event store here")
    with EventStore.create(store) as made:
        assert found(shop)["events"].state == "ok"
        assert found(shop)["events"].said.endswith(
            "shop.sqlite can be read; fedrec store status says whether it is whole"
        )
        made.keep_dataset("0" * 64)
    assert "the privacy of its people is counted in another ledger" in found(shop)["events"].said
    assert found(shop)["events"].mend.startswith("name theirs: fedrec join --ledger")


def test_merchant_who_has_just_joined_is_ready(shop):
    checks = found(shop)
    assert {name: one.state.value for name, one in checks.items()} == {
        "keys": "ok",
        "invitation": "ok",
        "events": "ok",
        "policy": "ok",
        "ledger": "ok",
        "certificate": "warning",  # the test's authority made it for twenty days
        "server": "ok",
        "clock": "ok",
    }
    assert re.fullmatch(
        r"intact; epsilon 0(\.0)? of 8\.0 spent at delta 1e-05, "
        r"per person at a client \(add or remove one person\), by .*; "
        r"0 of 4 rounds of this federation charged",
        checks["ledger"].said,
    )


def test_rounds_that_were_charged_are_counted_and_the_end_of_the_plan_is_said(shop):
    settings = load_client_settings(shop / "client.toml")
    agreement = read_agreement(settings.federation)
    policy = load_policy(settings.policy)
    ledger = Ledger.open(settings.ledger_files, dataset=settings.dataset, policy=policy)
    plan = agreement.plan
    for index in range(1, plan.rounds + 1):
        ledger.charge(f"{agreement.run_id}/{index}", plan.training(plan.local_steps), plan=plan)
    one = found(shop)["ledger"]
    assert (one.state.value, one.mend) == (
        "warning",
        "nothing is left of this plan: this client will refuse further rounds",
    )
    assert "4 of 4 rounds" in one.said
    assert re.search(r"epsilon [78]\.\d+ of 8\.0 spent", one.said)


def test_people_who_gave_more_than_the_policy_allows_fail(shop):
    settings = load_client_settings(shop / "client.toml")
    plan, policy = read_agreement(settings.federation).plan, load_policy(settings.policy)
    ledger = Ledger.open(settings.ledger_files, dataset=settings.dataset, policy=policy)
    ledger.charge("another/1", plan.training(plan.local_steps), plan=plan)
    write_policy(policy.model_copy(update={"max_epsilon": 0.5}), settings.policy)
    one = found(shop)["ledger"]
    assert one.state.value == "failed"
    assert "of 0.5 spent" in one.said
    assert "0 of 4 rounds of this federation" in one.said
    limit = f"max_epsilon in {settings.policy} counts all that they ever gave"
    assert one.mend == f"nothing is left for these people: {limit}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"allowed_code": ("d" * 64,)}, "allowed_code"),
        ({"allowed_bases": ("d" * 64,)}, "allowed_bases"),
        ({"server_key": "d" * 64}, "server_key"),
        ({"max_epsilon": 1.0}, "max_epsilon"),
        ({"min_noise_multiplier": 99.0}, "min_noise_multiplier"),
    ],
)
def test_policy_that_forbids_the_federation_is_found_by_its_key(shop, change, said):
    path = shop / "policy.toml"
    write_policy(load_policy(path).model_copy(update=change), path)
    one = found(shop)["policy"]
    assert one.state.value == "failed"
    assert said in one.said
    assert one.mend


def _delete(*names):
    return lambda shop: [(shop / name).unlink() for name in names]


def _flip(name):
    def flip(shop):
        path = shop / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return flip


@pytest.mark.parametrize(
    ("spoil", "check", "said"),
    [
        (_delete("keys/node.key"), "keys", "keys: no keys here"),
        (_delete("keys/reply.pub"), "keys", "reply.pub: missing"),
        (_flip("federation/base/ranker.safetensors"), "invitation", "was changed since the invitation was made"),
        (_delete("policy.toml"), "policy", "policy.toml"),
        (_delete("ledger.sqlite"), "ledger", "ledger.sqlite"),
        (_flip("federation/ca.crt"), "server", "ca.crt"),
        (lambda shop: (shop.parent / "events.csv").unlink(), "events", "No such file"),
    ],
)
def test_what_was_spoiled_is_found_and_the_rest_is_still_looked_at(shop, spoil, check, said):
    spoil(shop)
    checks = found(shop)
    assert checks[check].state.value == "failed"
    assert said in checks[check].said
    assert checks[check].mend
    assert {"keys", "invitation", "events", "policy", "ledger"} <= checks.keys()


def _with_certificate(text):
    def write(shop):
        for name in ("tls.key", "tls.crt"):
            (shop / "keys" / name).write_text(text)

    return write


def _with_authority(content):
    """As an operator may have sent it, whole by its own digests."""

    def write(shop):
        crt, terms = shop / "federation" / "ca.crt", shop / "federation" / "invitation.toml"
        before = hashlib.sha256(crt.read_bytes()).hexdigest()
        crt.write_bytes(content)
        terms.write_text(terms.read_text().replace(before, hashlib.sha256(content).hexdigest()))

    return write


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_with_certificate("none"), r"keys/tls\.crt: not a certificate for tls\.key; have tls\.csr signed again"),
        (_with_authority(b""), "ca.crt: expected a certificate .*; ask the operator for a whole invitation"),
        (_with_authority(b"none"), "ca.crt: expected a certificate .*; ask the operator for a whole invitation"),
        (_with_authority(b"\xff"), "ca.crt: expected a certificate .*; ask the operator for a whole invitation"),
    ],
)
def test_certificate_that_is_none_stops_doctor_client_and_join_with_a_line(shop, spoil, said, tmp_path):
    spoil(shop)
    one = found(shop)["server"]
    assert re.search(f"{said}$", f"{one.said}; {one.mend}")
    settings = load_client_settings(shop / "client.toml")
    invitation = read_invitation(settings.federation)
    with pytest.raises(ConfigError, match=said):
        stay(build_app(lambda _: None), link_of(settings, invitation), stop=threading.Event())
    if "ca.crt" in said:
        with pytest.raises(ConfigError, match=r"ca\.crt: expected a certificate"):
            join(
                invitation.folder,
                tmp_path / "other",
                name="other",
                events=settings.events,
                columns={},
                wishes=Wishes(1),
            )


def test_federation_without_privacy_is_a_warning_wherever_one_looks(tmp_path):
    operator = Operator(tmp_path / "operator", open_plan())
    events = write_events(tmp_path / "events.csv")
    joined(operator, tmp_path / "shop", events=events, allow_not_private=True)
    checks = found(tmp_path / "shop")
    assert [checks[name].state.value for name in ("policy", "ledger")] == ["warning", "warning"]
    assert all("NOT PRIVATE" in checks[name].said for name in ("policy", "ledger"))
    assert checks["server"].state.value == "failed"  # nobody listens at the address of this one
