"""An invitation is whole and the operator's, or it is refused by the name of the file that is not."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fedrec import invitation as module
from fedrec.agreement import read_agreement
from fedrec.data.catalogue import read_catalogue
from fedrec.errors import ConfigError, FedrecError, RunError
from fedrec.invitation import LARGEST, copy_invitation, read_invitation, split_address
from tests.tiny_invitation import ADDRESS, MAX_HISTORY, MIN_EVENTS, Operator, catalogue
from tests.tiny_ranker import open_plan


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(tmp_path_factory.mktemp("operator"), open_plan())


@pytest.fixture
def folder(operator: Operator, tmp_path: Path) -> Path:
    """A merchant's copy, to spoil."""
    return Path(shutil.copytree(operator.invitation.folder, tmp_path / "invitation"))


def test_an_invitation_comes_back_as_it_was_written(operator: Operator) -> None:
    read = read_invitation(operator.invitation.folder)
    terms = read.terms
    assert read == operator.invitation
    assert (terms.name, terms.address, terms.server_key) == ("spring", ADDRESS, operator.key.public)
    assert (terms.min_events, terms.max_history) == (MIN_EVENTS, MAX_HISTORY)
    assert read.agreement() == operator.agreement == read_agreement(operator.run)
    assert read.authority.read_bytes() == (operator.authority / "ca.crt").read_bytes()


def test_it_carries_the_items_and_their_text_in_the_bases_order_and_nothing_else(operator: Operator) -> None:
    items = read_catalogue(operator.invitation.catalogue, columns={})
    assert items.item_ids == catalogue().item_ids
    assert items.texts() == catalogue().texts()
    assert items.attributes.columns == ["brand"], "a price is no text"


def test_it_holds_no_secret_and_no_file_but_those_it_names(operator: Operator) -> None:
    place = operator.invitation.folder
    files = {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert set(files) == {"invitation.toml", *LARGEST}
    secret = (operator.keys / "server.key").read_bytes().strip()
    assert all(secret not in content and b"PRIVATE KEY" not in content for content in files.values())


@pytest.mark.parametrize("file", sorted(LARGEST))
def test_one_changed_bit_in_any_file_is_refused_by_name(file: str, folder: Path) -> None:
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(RunError, match=f"{file}: was changed since the invitation was made; ask the operator"):
        read_invitation(folder)


@pytest.mark.parametrize("file", ["invitation.toml", *sorted(LARGEST)])
def test_a_missing_file_is_refused_by_name(file: str, folder: Path) -> None:
    (folder / file).unlink()
    with pytest.raises(RunError, match=f"{file}: cannot be read: No such file or directory; expected a whole"):
        read_invitation(folder)


def test_the_fingerprint_tells_every_change_of_the_terms(folder: Path, operator: Operator) -> None:
    terms = folder / "invitation.toml"
    terms.write_text(terms.read_text().replace(ADDRESS, "evil.example.org:8443"))
    assert read_invitation(folder).fingerprint != operator.invitation.fingerprint


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def queue(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        ("ca.crt", link, "ca.crt: is a link"),
        ("invitation.toml", link, "invitation.toml: is a link"),
        ("base", link, "base: is a link; expected a folder"),
        ("ca.crt", queue, "ca.crt: is not a file"),
        ("catalogue.parquet", directory, "catalogue.parquet: is not a file"),
    ],
)
def test_what_is_no_plain_file_is_refused(file: str, spoil: Callable[[Path], None], message: str, folder: Path) -> None:
    spoil(folder / file)
    with pytest.raises(RunError, match=message):
        read_invitation(folder)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('name = "spring"', 'name = "../spring"', "name='../spring'"),
        (ADDRESS, "https://127.0.0.1:8443", "expected HOST:PORT, such as fedrec.example.org:8443"),
        ("min_events = 3", "min_events = 0", "min_events: Input should be greater than or equal to 1"),
        ("min_events = 3", "min_events = 3\nextra = 1", "extra: Extra inputs are not permitted"),
        ("version = 1", "version = 2", "version: Input should be 1"),
        ('"ca.crt" = ', '"../ca.crt" = ', "sha256: expected exactly agreement.json, base/items.safetensors"),
        ("version = 1", "version", "not TOML; ask the operator"),
        ("version = 1", "version = " + "[" * 60_000, "not TOML; ask the operator"),
    ],
)
def test_terms_that_say_something_else_are_refused(before: str, after: str, message: str, folder: Path) -> None:
    path = folder / "invitation.toml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(ConfigError, match=message):
        read_invitation(folder)


def test_another_servers_key_in_the_terms_is_refused(folder: Path, operator: Operator) -> None:
    path = folder / "invitation.toml"
    path.write_text(path.read_text().replace(operator.key.public, "0" * 64))
    with pytest.raises(RunError, match=r"server_key is not the one in agreement\.json"):
        read_invitation(folder).agreement()


@pytest.mark.parametrize("file", ["invitation.toml", "ca.crt"])
def test_what_is_too_large_is_not_read_to_its_end(file: str, folder: Path) -> None:
    with (folder / file).open("ab") as stream:
        stream.truncate(2**40)  # a hole: no disk holds it, and no test reads it
    with pytest.raises(RunError, match=f"{file}: larger than 65536 bytes; not"):
        read_invitation(folder)


def test_a_copy_is_checked_too(operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = copy_invitation(operator.invitation, tmp_path / "copy")
    assert (copy.terms, copy.fingerprint) == (operator.invitation.terms, operator.invitation.fingerprint)

    def spoiled(source: Path, target: Path, **options: object) -> None:
        target.write_bytes(source.read_bytes() + b" ")

    monkeypatch.setattr(module.shutil, "copyfile", spoiled)
    with pytest.raises(FedrecError, match="was changed"):
        copy_invitation(operator.invitation, tmp_path / "spoiled")


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("fedrec.example.org:8443", ("fedrec.example.org", 8443)),
        ("203.0.113.7:1", ("203.0.113.7", 1)),
        ("[2001:db8::7]:65535", ("2001:db8::7", 65535)),
    ],
)
def test_an_address_is_a_host_and_a_port(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address", ["", "host", "host:", "host:0", "host:65536", "http://host:80", "host:80/x", "a b:80", "::1:80", "u@h:1"]
)
def test_anything_else_is_no_address(address: str) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        split_address(address)
