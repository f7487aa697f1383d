"""Key folders are made whole or not at all, are their owner's alone, and fit the programs that read them."""

import argparse
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.cli.supernode.register import try_load_public_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

from fedrec.errors import ConfigError
from fedrec.keycheck import look_at
from fedrec.keyfiles import (
    _filling,
    _write,
    make_authority,
    make_client,
    make_server,
    read_authority,
    read_certificate,
    read_file,
    read_key,
    read_request,
    sign_request,
)
from fedrec.signing import Purpose, SigningKey, is_signed

NOW = datetime.now(UTC)
SERVER_FILES = {"ca.crt", "server.key", "server.pub", "tls.crt", "tls.key"}
CLIENT_FILES = {"node.key", "node.pub", "reply.key", "reply.pub"}

SHORT_OF_DISK = """
import resource, sys
from datetime import UTC, datetime
from pathlib import Path
from fedrec.errors import ConfigError
from fedrec.keyfiles import make_server
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    make_server(Path(sys.argv[1]), Path(sys.argv[2]), ["fedrec.test"], days=398, now=datetime.now(UTC))
except ConfigError as refusal:
    print(refusal)
"""


@pytest.fixture
def authority(tmp_path):
    make_authority(tmp_path / "authority", days=1825, now=NOW)
    return tmp_path / "authority"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def server(folder: Path, authority: Path, **kept):
    return make_server(folder, authority, ["fedrec.test"], days=398, now=NOW, **kept)


def test_each_folder_holds_its_files_which_only_the_owner_reads(tmp_path, authority):
    server(tmp_path / "server", authority)
    make_client(tmp_path / "client", "shop-7", with_request=False)
    make_client(tmp_path / "asking", "shop-7", with_request=True)
    found = {name: set(contents(tmp_path / name)) for name in ("authority", "server", "client", "asking")}
    asking = CLIENT_FILES | {"tls.key", "tls.csr"}
    assert found == {
        "authority": {"ca.key", "ca.crt"}, "server": SERVER_FILES, "client": CLIENT_FILES, "asking": asking
    }  # fmt: skip
    for name in found:
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / name).iterdir()} == {0o600}


def test_flowers_own_loaders_take_the_node_key(tmp_path):
    make_client(tmp_path / "client", "shop-7", with_request=False)
    arguments = argparse.Namespace(
        auth_supernode_private_key=str(tmp_path / "client" / "node.key"), auth_supernode_public_key=None
    )
    private, public = _try_setup_client_authentication(arguments)
    assert private.curve.name == "secp384r1"
    assert try_load_public_key(tmp_path / "client" / "node.pub") == public_key_to_bytes(public)
    assert (tmp_path / "client" / "node.pub").read_text().endswith(" shop-7\n")


def test_signing_keys_sign_and_their_public_halves_are_what_is_returned(tmp_path, authority):
    public = server(tmp_path / "server", authority)
    reply = make_client(tmp_path / "client", "shop-7", with_request=False)
    for folder, name, told in (("server", "server", public), ("client", "reply", reply)):
        signature = SigningKey.load(tmp_path / folder / f"{name}.key").sign(b"x", purpose=Purpose.LEDGER_HEAD)
        assert is_signed(b"x", signature, public=told, purpose=Purpose.LEDGER_HEAD)
        assert (tmp_path / folder / f"{name}.pub").read_text() == told + "\n"


def test_no_two_keys_are_the_same(tmp_path, authority):
    for name in ("one", "two"):
        server(tmp_path / f"server-{name}", authority)
        make_client(tmp_path / f"client-{name}", "shop-7", with_request=True)
    keys = [path.read_bytes() for path in tmp_path.rglob("*.key")]
    assert len(keys) == len(set(keys)) == 11


def test_server_gets_the_authoritys_certificate_and_never_its_key(tmp_path, authority):
    server(tmp_path / "server", authority)
    assert (tmp_path / "server" / "ca.crt").read_bytes() == (authority / "ca.crt").read_bytes()
    secret = (authority / "ca.key").read_text().splitlines()[1]
    assert all(secret.encode() not in data for data in contents(tmp_path / "server").values())


def test_renewed_server_keeps_the_signing_key_that_clients_pinned_and_nothing_else(tmp_path, authority):
    public = server(tmp_path / "old", authority)
    assert server(tmp_path / "new", authority, keep=tmp_path / "old") == public
    old, new = contents(tmp_path / "old"), contents(tmp_path / "new")
    assert {name for name in SERVER_FILES if old[name] == new[name]} == {"ca.crt", "server.key", "server.pub"}
    assert stat.S_IMODE((tmp_path / "new" / "server.key").stat().st_mode) == 0o600


def test_kept_key_that_is_missing_is_named_and_nothing_is_made(tmp_path, authority):
    with pytest.raises(ConfigError, match=r"old/server\.key: the key cannot be read: No such file"):
        server(tmp_path / "new", authority, keep=tmp_path / "old")
    assert not (tmp_path / "new").exists()


def test_folder_that_holds_anything_is_left_as_it_is(tmp_path, authority):
    server(tmp_path / "server", authority)
    before = {folder: contents(tmp_path / folder) for folder in ("authority", "server")}
    for make in (
        lambda: make_authority(authority, days=30, now=NOW),
        lambda: server(tmp_path / "server", authority),
        lambda: make_client(tmp_path / "server", "shop-7", with_request=True),
    ):
        with pytest.raises(ConfigError, match="not empty; nothing is overwritten: choose another place"):
            make()
    assert {folder: contents(tmp_path / folder) for folder in before} == before


def test_empty_folder_is_taken_and_closed_to_others(tmp_path):
    (tmp_path / "mounted").mkdir(mode=0o755)
    make_client(tmp_path / "mounted", "shop-7", with_request=False)
    assert stat.S_IMODE((tmp_path / "mounted").stat().st_mode) == 0o700


def test_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(ConfigError, match=r"a: keys cannot be written: File exists"):
        make_client(tmp_path / "a", "shop-7", with_request=False)
    with pytest.raises(ConfigError, match=r"a/b: keys cannot be written: Not a directory"):
        make_client(tmp_path / "a" / "b", "shop-7", with_request=False)


def test_wrong_name_or_host_or_days_leaves_no_folder(tmp_path, authority):
    with pytest.raises(ConfigError, match="name='a b': expected"):
        make_client(tmp_path / "new", "a b", with_request=False)
    with pytest.raises(ConfigError, match=r"host='\*': expected"):
        make_server(tmp_path / "new", authority, ["*"], days=398, now=NOW)
    with pytest.raises(ConfigError, match="days=0: expected"):
        make_authority(tmp_path / "new", days=0, now=NOW)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("room", [0, 500])  # nothing; tls.key in full, and tls.crt cut short
def test_full_disk_is_named_and_leaves_no_half_made_keys(tmp_path, authority, room):
    folder = tmp_path / "server"
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_DISK, str(folder), str(authority), str(room)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert done.stdout.strip() == f"{folder}: keys cannot be written: File too large"
    assert contents(folder) == {}


def test_of_several_who_make_keys_in_one_folder_one_succeeds_and_keeps_its_own(tmp_path):
    def make(name: int) -> str:
        try:
            return make_client(tmp_path / "client", f"shop-{name}", with_request=True)
        except ConfigError as refusal:
            return str(refusal)

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(make, range(8)))
    made = [text for text in told if "client" not in text]
    assert made == [(tmp_path / "client" / "reply.pub").read_text().strip()]
    assert {text.split(": ", 1)[1] for text in told if text not in made} <= {
        "not empty; nothing is overwritten: choose another place",
        "keys cannot be written: File exists",
    }
    assert look_at(tmp_path / "client", now=NOW).problems == ()


def test_file_that_somebody_else_makes_in_between_is_left_alone(tmp_path):
    def lose_the_race() -> None:
        with _filling(tmp_path / "new") as made:
            (tmp_path / "new" / "node.key").write_text("theirs")
            _write(tmp_path / "new", {"node.key": "mine"}, made)

    with pytest.raises(ConfigError, match="new: keys cannot be written: File exists"):
        lose_the_race()
    assert contents(tmp_path / "new") == {"node.key": b"theirs"}


def test_certificate_lies_beside_its_request_and_is_never_overwritten(tmp_path, authority):
    make_client(tmp_path / "client", "shop-7", with_request=True)
    request = (tmp_path / "client" / "tls.csr").rename(tmp_path / "shop-7.csr")
    assert sign_request(request, authority, days=398, now=NOW) == tmp_path / "shop-7.crt"
    certificate = read_certificate(tmp_path / "shop-7.crt")
    assert certificate.public_key() == read_key(tmp_path / "client" / "tls.key").public_key()
    assert certificate.not_valid_after_utc - NOW.replace(microsecond=0) == timedelta(days=398)
    before = (tmp_path / "shop-7.crt").read_bytes()
    with pytest.raises(ConfigError, match=r"shop-7\.crt: exists; move it away to sign again"):
        sign_request(request, authority, days=398, now=NOW)
    assert (tmp_path / "shop-7.crt").read_bytes() == before


def test_authority_whose_key_and_certificate_differ_is_refused(tmp_path, authority):
    make_authority(tmp_path / "other", days=30, now=NOW)
    (tmp_path / "other" / "ca.crt").replace(authority / "ca.crt")
    with pytest.raises(ConfigError, match=r"authority: ca\.crt is not the certificate of ca\.key; restore the two"):
        read_authority(authority)


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (read_key, "expected a private key on NIST P-384 without a password"),
        (read_certificate, r"expected a certificate \(PEM\)"),
        (read_request, r"expected a certificate request \(PEM\)"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"secret", b"-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n", b"\xff" * 99])
def test_other_content_is_refused_and_never_shown(tmp_path, read, expected, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ConfigError, match=f"a: {expected}") as refused:
        read(tmp_path / "a")
    assert "secret" not in str(refused.value)


def test_missing_or_huge_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="a: cannot be read: No such file"):
        read_file(tmp_path / "a")
    (tmp_path / "a").write_bytes(bytes(65_537))
    with pytest.raises(ConfigError, match="a: larger than 65536 bytes; not a key or certificate"):
        read_file(tmp_path / "a")


def test_key_on_another_curve_or_with_a_password_is_refused(tmp_path):

    plain, closed = serialization.NoEncryption(), serialization.BestAvailableEncryption(b"word")
    for curve, protection in ((ec.SECP256R1(), plain), (ec.SECP384R1(), closed)):
        key = ec.generate_private_key(curve)
        form = serialization.PrivateFormat.PKCS8
        (tmp_path / "a").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, protection))
        with pytest.raises(ConfigError, match="expected a private key on NIST P-384 without a password"):
            read_key(tmp_path / "a")
