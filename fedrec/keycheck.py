"""What lies in a folder of keys, whether it fits together, and how long it lasts. Shows public halves alone."""

import hashlib
import stat
from base64 import b64encode
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedrec.certificates import requested_name
from fedrec.errors import ConfigError
from fedrec.keyfiles import (
    CA_CRT,
    CA_KEY,
    NODE_KEY,
    NODE_PUB,
    REPLY_KEY,
    REPLY_PUB,
    SERVER_KEY,
    SERVER_PUB,
    TLS_CRT,
    TLS_CSR,
    TLS_KEY,
    read_certificate,
    read_key,
    read_node_public,
    read_request,
    read_signing_public,
)
from fedrec.signing import SigningKey

WARN_DAYS = 30
_KINDS = {  # the first name tells what a folder is; all of them belong in it
    "authority": (CA_KEY, CA_CRT),
    "server": (SERVER_KEY, SERVER_PUB, TLS_KEY, TLS_CRT, CA_CRT),
    "client": (NODE_KEY, NODE_PUB, REPLY_KEY, REPLY_PUB),
}
_ORDER = (CA_CRT, CA_KEY, TLS_CRT, TLS_CSR, TLS_KEY, SERVER_KEY, SERVER_PUB, NODE_KEY, NODE_PUB, REPLY_KEY, REPLY_PUB)
_PAIRS = (
    (CA_KEY, CA_CRT),
    (TLS_KEY, TLS_CRT),
    (TLS_KEY, TLS_CSR),
    (SERVER_KEY, SERVER_PUB),
    (NODE_KEY, NODE_PUB),
    (REPLY_KEY, REPLY_PUB),
)


@dataclass(frozen=True)
class KeyFile:
    """One file, told by its public half."""

    file: str
    what: str
    fingerprint: str  # the public key itself where it is 64 hex digits
    public: object = field(repr=False)  # equal for the two halves of a pair
    expires: datetime | None = None
    days_left: int | None = None


@dataclass(frozen=True)
class KeyFolder:
    """A folder of keys: with problems it cannot be used, with warnings it soon or safely cannot."""

    folder: Path
    kind: str
    files: tuple[KeyFile, ...]
    warnings: tuple[str, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same, as JSON has it."""
        files = [asdict(one) | {"expires": _day_and_time(one.expires)} for one in self.files]
        for one in files:
            del one["public"]
        return {
            "folder": str(self.folder),
            "kind": self.kind,
            "files": files,
            "warnings": list(self.warnings),
            "problems": list(self.problems),
        }


def look_at(folder: Path, *, now: datetime) -> KeyFolder:
    """Read every key and certificate in a folder, and compare them.

    Raises:
        ConfigError: no key of fedrec lies there.
    """
    kind = next((kind for kind, names in _KINDS.items() if (folder / names[0]).is_file()), None)
    if kind is None:
        raise ConfigError(f"{folder}: no keys here; expected {', '.join(names[0] for names in _KINDS.values())}")
    problems = [f"{name}: missing" for name in _KINDS[kind] if not (folder / name).is_file()]
    if kind == "client" and not (folder / TLS_KEY).is_file():
        problems += [
            f"{TLS_KEY}: missing, and {name} needs it" for name in (TLS_CSR, TLS_CRT) if (folder / name).is_file()
        ]
    found: dict[str, KeyFile] = {}
    for name in _ORDER:
        if (folder / name).is_file():
            try:
                found[name] = _READERS[name](folder / name, now)
            except ConfigError as error:
                problems.append(str(error).removeprefix(f"{folder}/"))
    problems += [
        f"{public}: does not belong to {private}"
        for private, public in _PAIRS
        if private in found and public in found and found[private].public != found[public].public
    ]
    problems += _chain(folder, found) + [late for one in found.values() if (late := _invalid(folder, one, kind, now))]
    return KeyFolder(folder, kind, tuple(found.values()), tuple(_warnings(folder, found, kind)), tuple(problems))


def request_fingerprint(path: Path) -> str:
    """What both sides compare before a request is signed: SHA-256 over its DER form, hex."""
    return hashlib.sha256(read_request(path).public_bytes(serialization.Encoding.DER)).hexdigest()


def certificate_fingerprint(path: Path) -> str:
    """SHA-256 over the certificate's DER form, hex: what ``openssl x509 -fingerprint -sha256`` shows."""
    return read_certificate(path).fingerprint(hashes.SHA256()).hex()


def node_fingerprint(path: Path) -> str:
    """A node's public key as ``ssh-keygen -lf`` shows it."""
    return _node_public(path, None).fingerprint


def _certificate(path: Path, now: datetime) -> KeyFile:
    one = read_certificate(path)
    expires = one.not_valid_after_utc
    return KeyFile(
        path.name, _subject(one), certificate_fingerprint(path), one.public_key(), expires, (expires - now).days
    )


def _subject(certificate: x509.Certificate) -> str:
    """Whose certificate it is: the hosts where there are some, the name otherwise."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        name = certificate.subject.rfc4514_string().removeprefix("CN=")
        return f"certificate of {''.join(letter if letter.isprintable() else '?' for letter in name)}"
    except ValueError:
        return "certificate with malformed extensions"
    return f"certificate for {', '.join(str(name.value) for name in names)}"


def _request(path: Path, _: object) -> KeyFile:
    one = read_request(path)
    return KeyFile(
        path.name, f"certificate request of {requested_name(one)}", request_fingerprint(path), one.public_key()
    )


def _private(path: Path, _: object) -> KeyFile:
    public = read_key(path).public_key()
    if path.name == NODE_KEY:
        return KeyFile(path.name, "node key, private", ssh_fingerprint(public), public)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    digest = hashlib.sha256(public.public_bytes(serialization.Encoding.DER, form)).hexdigest()
    return KeyFile(path.name, "private key", digest, public)


def _node_public(path: Path, _: object) -> KeyFile:
    public = read_node_public(path)
    return KeyFile(path.name, "node key, public: for the operator", ssh_fingerprint(public), public)


def ssh_fingerprint(public: ec.EllipticCurvePublicKey) -> str:
    """A public key as ``ssh-keygen -lf`` shows it."""
    digest = serialization.ssh_key_fingerprint(public, hashes.SHA256())
    return f"SHA256:{b64encode(digest).decode('ascii').rstrip('=')}"


def _signing(path: Path, _: object) -> KeyFile:
    public = SigningKey.load(path).public
    return KeyFile(path.name, "signing key, private", public, public)


def _signing_public(path: Path, _: object) -> KeyFile:
    text = read_signing_public(path)
    whose = "what clients pin as server_key" if path.name == SERVER_PUB else "for the operator"
    return KeyFile(path.name, f"signing key, public: {whose}", text, text)


_READERS: dict[str, Callable[[Path, datetime], KeyFile]] = {
    CA_CRT: _certificate,
    TLS_CRT: _certificate,
    TLS_CSR: _request,
    CA_KEY: _private,
    TLS_KEY: _private,
    NODE_KEY: _private,
    NODE_PUB: _node_public,
    SERVER_KEY: _signing,
    REPLY_KEY: _signing,
    SERVER_PUB: _signing_public,
    REPLY_PUB: _signing_public,
}


def _chain(folder: Path, found: dict[str, KeyFile]) -> list[str]:
    """Whether the authority in the folder signed the certificate in it."""
    if TLS_CRT not in found or CA_CRT not in found:
        return []
    try:
        read_certificate(folder / TLS_CRT).verify_directly_issued_by(read_certificate(folder / CA_CRT))
    except (ValueError, TypeError, InvalidSignature):
        return [f"{TLS_CRT}: not signed by the authority in {CA_CRT}"]
    return []


def _invalid(folder: Path, one: KeyFile, kind: str, now: datetime) -> str | None:
    """Why a certificate does not hold now."""
    if one.expires is None:
        return None
    if one.expires <= now:
        return f"{one.file}: expired on {one.expires:%Y-%m-%d}; {_renewal(one.file, kind)}"
    begins = read_certificate(folder / one.file).not_valid_before_utc
    return f"{one.file}: holds from {begins:%Y-%m-%d %H:%M} UTC on; is the clock right?" if begins > now else None


def _warnings(folder: Path, found: dict[str, KeyFile], kind: str) -> list[str]:
    soon = [
        f"{one.file}: expires in {one.days_left} days, on {one.expires:%Y-%m-%d}; {_renewal(one.file, kind)}"
        for one in found.values()
        if one.days_left is not None and 0 <= one.days_left < WARN_DAYS
    ]
    private = [folder / name for name in found if name.endswith(".key")]
    modes = [(path, stat.S_IMODE(path.stat().st_mode)) for path in [folder, *private]]
    return soon + [
        f"{path.name}: mode {mode:04o} lets others in; chmod {'700' if path == folder else '600'} {path}"
        for path, mode in modes
        if mode & 0o077
    ]


def _renewal(name: str, kind: str) -> str:
    if name == CA_CRT:
        return "a new one: fedrec keys authority, and its ca.crt to all"
    return "a new one: fedrec keys server --keep" if kind == "server" else f"have {TLS_CSR} signed again"


def _day_and_time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
