"""Each check of a machine finds what is wrong with it, and says how to mend it."""

import shutil
import socket
import stat
from datetime import UTC, datetime, timedelta
from importlib import metadata

import pytest

from fedrec.doctor import (
    Finding,
    State,
    check_disk,
    check_gpu,
    check_keys,
    check_packages,
    check_python,
    examine,
    is_free,
    ok,
)
from fedrec.errors import ConfigError, PrivacyError
from fedrec.keyfiles import make_authority, make_server

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def only(findings: list[Finding]) -> tuple[str, str, str]:
    (one,) = findings
    return one.state.value, one.said, one.mend


def requiring(monkeypatch: pytest.MonkeyPatch, *lines: str, versions: dict[str, str]) -> list[Finding]:
    """What is found where fedrec requires ``lines`` and ``versions`` are installed."""

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "requires", lambda name: list(lines))
    monkeypatch.setattr(metadata, "version", version)
    return list(check_packages())


@pytest.mark.parametrize(
    ("bounds", "version", "holds"),
    [
        (">=1.41,<1.42", "1.41.0", True),
        (">=1.41,<1.42", "1.41.9", True),
        ("<1.42,>=1.41", "1.42.0", False),
        (">=1.41,<1.42", "1.40.9", False),
        (">=2.9,<2.14", "2.13.0+cpu", True),
        (">=2.9,<2.14", "2.10.0", True),
        (">=2.9,<2.14", "2.14", False),
        ("==1.2", "1.2.0", True),
        ("!=1.2", "1.2.0", False),
        ("", "0.0.1", True),
    ],
)
def test_versions_are_compared_as_numbers(monkeypatch, bounds, version, holds):
    found = requiring(monkeypatch, f"thing{bounds}", versions={"thing": version})
    if holds:
        assert only(found) == ("ok", "all 1 in bounds; ", "")
    else:
        assert only(found) == ("failed", f"thing {version}: expected {bounds}", f"pip install 'thing{bounds}'")


def test_missing_package_is_named_and_extras_are_not_asked_for(monkeypatch):
    found = requiring(monkeypatch, "there>=1", "gone>=2,<3", "ray>=2; extra == 'ray'", versions={"there": "1.0"})
    assert only(found) == ("failed", "gone is not installed", "pip install 'gone>=2,<3'")


def test_each_bound_of_the_project_is_understood(monkeypatch):
    from tests.test_docs import PROJECT

    low = dict.fromkeys((line.split(">")[0] for line in PROJECT["dependencies"]), "0.0.1")
    wrong = requiring(monkeypatch, *PROJECT["dependencies"], versions=low)
    assert len(wrong) == len(PROJECT["dependencies"])
    assert {one.state for one in wrong} == {State.FAILED}


def test_checkout_that_was_never_installed_is_a_warning(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert only(check_packages()) == (
        "warning",
        "fedrec is not installed, so its bounds are not known",
        "pip install fedrec",
    )


def test_this_python_is_new_enough_and_an_older_one_is_not(monkeypatch):
    assert only(check_python())[0] == "ok"
    monkeypatch.setattr("sys.version_info", (3, 10, 14, "final", 0))
    assert only(check_python()) == ("failed", "3.10.14", "install Python 3.11 or newer")


@pytest.mark.parametrize(("free", "state"), [(2**40, "ok"), (2**30, "warning"), (2**20, "failed")])
def test_little_room_is_found_also_for_a_folder_that_is_still_to_be_made(monkeypatch, tmp_path, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(2**41, 2**41 - free, free))
    found = only(check_disk(tmp_path / "not" / "yet"))
    assert found[0] == state
    assert f"{free / 2**30:.1f} GiB free" in found[1]


def test_accelerator_is_named_or_not_needed():
    assert only(check_gpu())[0] in ("ok", "warning")


@pytest.fixture
def keys(tmp_path):
    make_authority(tmp_path / "authority", days=400, now=NOW)
    make_server(tmp_path / "keys", tmp_path / "authority", ["127.0.0.1"], days=90, now=NOW)
    return tmp_path / "keys"


def test_keys_that_are_whole_are_fine(keys):
    assert only(check_keys(keys, now=NOW)) == ("ok", "5 files of a server, whole and their owner's alone", "")


def test_expired_certificate_fails_and_says_how_to_renew(keys):
    state, said, mend = only(check_keys(keys, now=NOW + timedelta(days=91)))
    assert (state, said) == ("failed", "tls.crt: expired on 2027-02-20")
    assert mend == "a new one: fedrec keys server --keep"


def test_key_that_others_can_read_is_a_warning(keys):
    (keys / "server.key").chmod(0o644)
    assert stat.S_IMODE((keys / "server.key").stat().st_mode) == 0o644
    state, said, mend = only(check_keys(keys, now=NOW))
    assert (state, said) == ("warning", "server.key: mode 0644 lets others in")
    assert mend == f"chmod 600 {keys / 'server.key'}"


def test_port_is_free_until_somebody_listens_on_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not is_free("127.0.0.1", port)
    assert is_free("127.0.0.1", port)


def test_one_check_that_fails_hides_no_other_and_its_words_are_split_into_what_and_how():
    def broken(error):
        def check():
            raise error

        return check

    checks = {
        "first": broken(ConfigError("a.toml: no keys; here; make some")),
        "second": broken(PrivacyError("one half alone")),
        "third": lambda: [ok("third", "fine")],
    }
    found = [(one.check, one.state.value, one.said, one.mend) for one in examine(checks)]
    assert found == [
        ("first", "failed", "a.toml: no keys; here", "make some"),
        ("second", "failed", "one half alone", "see what the message names"),
        ("third", "ok", "fine", ""),
    ]
