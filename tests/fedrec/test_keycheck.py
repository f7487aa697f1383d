"""What is wrong with a folder of keys is said before a connection fails for it."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from fedrec.errors import ConfigError
from fedrec.keycheck import certificate_fingerprint, look_at
from fedrec.keyfiles import make_authority, make_client, make_server, sign_request

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two authorities, each with a server and a certified client."""
    place = tmp_path_factory.mktemp("keys")
    for side in (place / "one", place / "two"):
        make_authority(side / "authority", days=1825, now=NOW)
        make_server(side / "server", side / "authority", ["fedrec.test", "10.0.0.1"], days=398, now=NOW)
        make_client(side / "client", "shop-7", with_request=True)
        sign_request(side / "client" / "tls.csr", side / "authority", days=398, now=NOW)
    return place


@pytest.fixture
def mine(made, tmp_path):
    """A copy of the first, to spoil."""
    return shutil.copytree(made / "one", tmp_path / "mine")


@pytest.mark.parametrize("kind", ["authority", "server", "client"])
def test_whole_folder_has_no_problem_and_no_warning(made, kind):
    seen = look_at(made / "one" / kind, now=NOW)
    assert (seen.kind, seen.warnings, seen.problems) == (kind, (), ())
    assert {one.file for one in seen.files} == {path.name for path in (made / "one" / kind).iterdir()}


def test_facts_are_those_of_the_files(made):
    files = {one.file: one for one in look_at(made / "one" / "server", now=NOW).files}
    assert (files["tls.crt"].what, files["tls.crt"].days_left) == ("certificate for fedrec.test, 10.0.0.1", 398)
    assert files["ca.crt"].what.startswith("certificate of fedrec authority ")
    assert files["ca.crt"].days_left == 1825
    assert files["server.key"].fingerprint == (made / "one" / "server" / "server.pub").read_text().strip()
    assert files["tls.key"].expires is None


def test_node_fingerprint_is_the_one_of_ssh_keygen(made):
    if not (ssh_keygen := shutil.which("ssh-keygen")):
        pytest.skip("ssh-keygen is not installed")
    node = made / "one" / "client" / "node.pub"
    told = subprocess.run([ssh_keygen, "-lf", node], capture_output=True, text=True, check=True).stdout.split()
    files = {one.file: one for one in look_at(node.parent, now=NOW).files}
    assert (told[1], told[2]) == (files["node.pub"].fingerprint, "shop-7")
    assert files["node.key"].fingerprint == files["node.pub"].fingerprint


def test_certificate_fingerprint_is_the_one_of_openssl(made):
    if not (openssl := shutil.which("openssl")):
        pytest.skip("openssl is not installed")
    path = made / "one" / "server" / "tls.crt"
    command = [openssl, "x509", "-in", path, "-noout", "-fingerprint", "-sha256"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.split("=")[1].strip().replace(":", "").lower() == certificate_fingerprint(path)


@pytest.mark.parametrize(("days", "warned"), [(30, False), (29.9, True), (1, True)])
def test_certificate_that_expires_within_thirty_days_is_warned_about(made, days, warned):
    seen = look_at(made / "one" / "server", now=NOW + timedelta(days=398 - days))
    expected = f"tls.crt: expires in {int(days)} days, on {NOW + timedelta(days=398):%Y-%m-%d}; "
    expected += "a new one: fedrec keys server --keep"
    assert seen.warnings == ((expected,) if warned else ())
    assert seen.problems == ()


def test_expired_certificate_is_a_problem_and_each_kind_says_how_to_renew(made):
    at = NOW + timedelta(days=1825)
    ca = f"ca.crt: expired on {at:%Y-%m-%d}; a new one: fedrec keys authority, and its ca.crt to all"
    tls = f"tls.crt: expired on {NOW + timedelta(days=398):%Y-%m-%d}; "
    assert look_at(made / "one" / "authority", now=at).problems == (ca,)
    assert look_at(made / "one" / "server", now=at).problems == (ca, tls + "a new one: fedrec keys server --keep")
    seen = look_at(made / "one" / "client", now=at)
    assert (seen.problems, seen.warnings) == ((tls + "have tls.csr signed again",), ())


def test_certificate_of_tomorrow_is_a_problem(made):
    problems = look_at(made / "one" / "authority", now=NOW - timedelta(hours=2)).problems
    assert problems == (f"ca.crt: holds from {NOW - timedelta(hours=1):%Y-%m-%d %H:%M} UTC on; is the clock right?",)


@pytest.mark.parametrize(
    ("kind", "name", "others", "problem"),
    [
        ("authority", "ca.crt", "authority", "ca.crt: does not belong to ca.key"),
        ("server", "server.pub", "server", "server.pub: does not belong to server.key"),
        ("server", "tls.key", "server", "tls.crt: does not belong to tls.key"),
        ("client", "node.pub", "client", "node.pub: does not belong to node.key"),
        ("client", "reply.pub", "client", "reply.pub: does not belong to reply.key"),
        ("client", "tls.csr", "client", "tls.csr: does not belong to tls.key"),
        ("server", "ca.crt", "authority", "tls.crt: not signed by the authority in ca.crt"),
    ],
)
def test_file_of_somebody_else_is_found(made, mine, kind, name, others, problem):
    shutil.copy(made / "two" / others / name, mine / kind / name)
    assert look_at(mine / kind, now=NOW).problems == (problem,)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("authority", "ca.crt"),
        ("server", "tls.key"),
        ("server", "server.pub"),
        ("client", "node.pub"),
        ("client", "reply.key"),
    ],
)
def test_missing_file_is_named(mine, kind, name):
    (mine / kind / name).unlink()
    assert look_at(mine / kind, now=NOW).problems == (f"{name}: missing",)


def test_tls_files_of_a_client_go_with_their_key(mine):
    (mine / "client" / "tls.key").unlink()
    problems = ("tls.key: missing, and tls.csr needs it", "tls.key: missing, and tls.crt needs it")
    assert look_at(mine / "client", now=NOW).problems == problems


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("server", "tls.crt", "a certificate (PEM)"),
        ("server", "server.pub", "a public key, 64 hex digits"),
        ("client", "tls.csr", "a certificate request (PEM)"),
        ("client", "node.pub", "an ECDSA public key on NIST P-384 in OpenSSH form"),
        ("client", "node.key", "a private key on NIST P-384 without a password"),
    ],
)
def test_malformed_file_is_named_and_the_rest_is_still_looked_at(mine, kind, name, expected):
    (mine / kind / name).write_text("something else")
    seen = look_at(mine / kind, now=NOW)
    assert seen.problems == (f"{name}: expected {expected}",)
    assert len(seen.files) == len(list((mine / kind).iterdir())) - 1


def test_key_that_others_can_read_is_warned_about(mine):
    (mine / "client" / "node.key").chmod(0o640)
    (mine / "client").chmod(0o755)
    (mine / "client" / "node.pub").chmod(0o644)  # public
    assert look_at(mine / "client", now=NOW).warnings == (
        f"client: mode 0755 lets others in; chmod 700 {mine / 'client'}",
        f"node.key: mode 0640 lets others in; chmod 600 {mine / 'client' / 'node.key'}",
    )


def test_folder_without_keys_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"no keys here; expected ca\.key, server\.key, node\.key"):
            look_at(folder, now=NOW)
