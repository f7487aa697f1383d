"""A new federation: everything public in one folder, the private keys where they were, or no folder at all."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedrec.agreement import read_agreement
from fedrec.config import Config, load_config, parse_config
from fedrec.data.catalogue import write_catalogue
from fedrec.errors import ConfigError, FedrecError, PrivacyError, RunError
from fedrec.invitation import read_invitation
from fedrec.keyfiles import make_authority, make_server
from fedrec.model.base import CATALOGUE, FILES, PANEL, save_base
from fedrec.runfolder import RunFolder
from fedrec.signing import SigningKey
from server.founding import Founded, found
from server.job import job_of_run
from tests.tiny_invitation import catalogue
from tests.tiny_ranker import histories, learned

ADDRESS = "fedrec.example.org:8443"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an operator has: an authority, keys, a base with a panel, a catalogue."""
    folder, now = tmp_path_factory.mktemp("operator"), datetime.now(UTC)
    make_authority(folder / "authority", days=30, now=now)
    make_server(folder / "keys", folder / "authority", ["fedrec.example.org", "2001:db8::7"], days=20, now=now)
    save_base(learned(), folder / "base")
    (folder / "base" / CATALOGUE).write_text(catalogue().text_only().digest() + "\n")
    histories(5, 6, 7).save(folder / "base" / PANEL)
    write_catalogue(catalogue(), folder / "items.parquet")
    write_catalogue(catalogue(39), folder / "fewer.parquet")
    return folder


def config(**changes: Any) -> Config:
    """Four merchants of ten people for three rounds; changes such as ``privacy__epsilon=3``."""
    values: dict = {"partition": {"clients": 4, "people_per_client": 10}, "federation": {"rounds": 3}}
    for name, value in changes.items():
        section, _, key = name.partition("__")
        values.setdefault(section, {})[key] = value
    return parse_config(values, source="test")


# The metrics alone spend more than is promised.
SPENT = config(privacy__metrics=["hr@10"], privacy__metrics_every=1, privacy__metric_noise_multiplier=0.1)


def founded(given: Path, out: Path, settings: Config | None = None, **changes: Any) -> Founded:
    standard = {
        "base": given / "base",
        "catalogue": given / "items.parquet",
        "keys": given / "keys",
        "address": ADDRESS,
    }
    return found(out, settings or config(), **(standard | changes))


def test_a_federation_is_ready_to_run_with_the_key_where_it_was(given: Path, tmp_path: Path) -> None:
    settings = config(privacy__epsilon=3.0)
    made = founded(given, tmp_path / "spring", settings)
    agreed = read_agreement(tmp_path / "spring")
    assert made.agreement == agreed
    assert (agreed.plan.epsilon, agreed.plan.rounds, agreed.plan.expected_people) == (3.0, 3, 10)
    assert agreed.server_key == SigningKey.load(given / "keys" / "server.key").public
    assert len(agreed.run_id) == 32
    assert load_config(tmp_path / "spring" / "config.toml") == settings
    with RunFolder.open_for_resume(tmp_path / "spring") as folder:
        job = job_of_run(folder, settings, key=given / "keys" / "server.key")
    assert (job.federation.clients, job.federation.rounds) == (4, 3)
    assert job.conduct.judge is not None, "the panel of the base is what rounds are judged on"


def test_there_is_nothing_private_in_it(given: Path, tmp_path: Path) -> None:
    founded(given, tmp_path / "spring")
    files = {path.relative_to(tmp_path / "spring").as_posix() for path in (tmp_path / "spring").rglob("*")}
    base = {f"base/{name}" for name in (*FILES, PANEL, CATALOGUE)}
    invitation = {f"invitation/{name}" for name in ("invitation.toml", "catalogue.parquet", "ca.crt", "agreement.json")}
    invitation |= {f"invitation/base/{name}" for name in FILES}
    rest = {
        "agreement.json",
        "config.toml",
        "split.json",
        ".lock",
        "base",
        "checkpoints",
        "invitation",
        "invitation/base",
    }
    assert files == base | invitation | rest
    assert [path.name for path in tmp_path.iterdir()] == ["spring"]


def test_the_invitation_says_the_same(given: Path, tmp_path: Path) -> None:
    made = founded(given, tmp_path / "spring", config(data__min_events=5, data__max_history=60))
    read = read_invitation(tmp_path / "spring" / "invitation")
    assert (read.terms, read.fingerprint) == (made.invitation.terms, made.invitation.fingerprint)
    assert (read.terms.name, read.terms.address) == ("spring", ADDRESS)
    assert (read.terms.min_events, read.terms.max_history) == (5, 60)
    assert read.agreement() == made.agreement


@pytest.mark.parametrize("trust", ["distributed", "central"])
def test_none_is_founded_on_anything_but_local_trust(given: Path, tmp_path: Path, trust: str) -> None:
    with pytest.raises(PrivacyError, match=rf"privacy\.trust={trust}: needs .* simulation only; use local"):
        founded(given, tmp_path / "spring", config(privacy__trust=trust))
    assert not (tmp_path / "spring").exists()


def test_two_federations_are_never_one_run(given: Path, tmp_path: Path) -> None:
    bare = config(privacy__enabled=False)
    first, second = (founded(given, tmp_path / name, bare).agreement for name in ("first", "second"))
    assert first.run_id != second.run_id
    assert not first.plan.private


def test_a_base_without_a_panel_is_judged_by_nobody(given: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(given / "base", tmp_path / "base"))
    (base / PANEL).unlink()
    founded(given, tmp_path / "spring", config(privacy__enabled=False), base=base)
    assert not (tmp_path / "spring" / "base" / PANEL).exists()


@pytest.mark.parametrize("address", ["[2001:DB8:0::7]:8443", "FEDREC.example.org:1"])
def test_an_address_is_compared_as_certificates_spell_it(address: str, given: Path, tmp_path: Path) -> None:
    assert founded(given, tmp_path / "spring", config(privacy__enabled=False), address=address)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"address": "other.example.org:8443"},
            ConfigError,
            r"tls\.crt is for fedrec\.example\.org, 2001:db8::7; make",
        ),
        ({"address": "https://fedrec.example.org"}, ConfigError, "expected HOST:PORT"),
        ({"catalogue": "fewer.parquet"}, RunError, "base: made for 40 items, the catalogue has 39"),
        ({"base": "nowhere"}, RunError, "nowhere: not a usable base"),
        ({"keys": "authority"}, ConfigError, r"server\.key: the key cannot be read: No such file"),
        ({"settings": SPENT}, PrivacyError, "the other releases spend it all"),
        ({"settings": config(federation__clients_per_round=5)}, ConfigError, "clients_per_round"),
        ({"settings": parse_config({}, source="test")}, ConfigError, "people_per_client: expected the public nominal"),
    ],
)
def test_what_does_not_go_together_is_refused_and_leaves_nothing(
    changes: dict, kind: type[FedrecError], message: str, given: Path, tmp_path: Path
) -> None:
    changes = {
        name: given / value if name in ("catalogue", "base", "keys") else value for name, value in changes.items()
    }
    with pytest.raises(kind, match=message):
        founded(given, tmp_path / "spring", **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["no spaces", ".hidden"])
def test_the_folders_name_must_do_as_a_name(name: str, given: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 64 letters"):
        founded(given, tmp_path / name)
