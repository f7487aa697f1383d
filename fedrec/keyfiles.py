"""The folders in which an authority, a server and a client keep their keys.

Each is made whole by its owner on its own machine; only what is public is ever handed on. Every
file is 0600 in a folder of 0700, and none is ever overwritten.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedrec.certificates import Authority, check_name, new_key, new_request
from fedrec.errors import ConfigError
from fedrec.privacy.durable import create_file, sync_folder
from fedrec.signing import SigningKey

CA_KEY, CA_CRT = "ca.key", "ca.crt"
TLS_KEY, TLS_CRT, TLS_CSR = "tls.key", "tls.crt", "tls.csr"
SERVER_KEY, SERVER_PUB = "server.key", "server.pub"
NODE_KEY, NODE_PUB = "node.key", "node.pub"
REPLY_KEY, REPLY_PUB = "reply.key", "reply.pub"

_PEM = serialization.Encoding.PEM
_LARGEST_FILE = 65_536
_MALFORMED = (ValueError, TypeError, UnsupportedAlgorithm)


def make_authority(folder: Path, *, days: int, now: datetime) -> None:
    """Write a new authority: ``ca.key`` and ``ca.crt``.

    Raises:
        ConfigError: the folder is not new or empty, or cannot be written; ``days`` is out of range.
    """
    authority = Authority.create(days=days, now=now)
    with _filling(folder) as made:
        _write(folder, {CA_KEY: _pkcs8(authority.key), CA_CRT: certificate_pem(authority.certificate)}, made)


def make_server(
    folder: Path, authority: Path, hosts: Sequence[str], *, days: int, now: datetime, keep: Path | None = None
) -> str:
    """Write a server's keys: ``tls.key``, ``tls.crt``, ``ca.crt``, ``server.key``, ``server.pub``.

    Args:
        keep: an older folder of this server whose signing key goes on being used: clients have pinned it.

    Returns:
        The public half of the signing key, 64 hex digits: what clients pin as ``server_key``.

    Raises:
        ConfigError: as ``make_authority``; the authority cannot be read or expires first; a host is malformed.
    """
    by, key = read_authority(authority), new_key()
    certificate = by.certify_server(key.public_key(), hosts, days=days, now=now)
    kept = _kept(keep / SERVER_KEY) if keep else None
    files = {TLS_KEY: _pkcs8(key), TLS_CRT: certificate_pem(certificate), CA_CRT: certificate_pem(by.certificate)}
    with _filling(folder) as made:
        _write(folder, files | ({SERVER_KEY: kept} if kept else {}), made)
        public = SigningKey.load(folder / SERVER_KEY).public if kept else _signing_key(folder / SERVER_KEY, made)
        _write(folder, {SERVER_PUB: public + "\n"}, made)
    return public


def make_client(folder: Path, name: str, *, with_request: bool) -> str:
    """Write a client's keys: ``node.*`` for Flower, ``reply.*`` for signing replies, ``tls.*`` on request.

    Returns:
        The public half of the reply-signing key, 64 hex digits.

    Raises:
        ConfigError: the folder is not new or empty, or cannot be written; the name is malformed.
    """
    node = new_key()
    files = {NODE_KEY: _openssh(node), NODE_PUB: f"{_openssh_public(node)} {check_name(name)}\n"}
    if with_request:
        key = new_key()
        files |= {TLS_KEY: _pkcs8(key), TLS_CSR: new_request(key, name).public_bytes(_PEM).decode("ascii")}
    with _filling(folder) as made:
        _write(folder, files, made)
        public = _signing_key(folder / REPLY_KEY, made)
        _write(folder, {REPLY_PUB: public + "\n"}, made)
    return public


def sign_request(path: Path, authority: Path, *, days: int, now: datetime) -> Path:
    """Write the certificate that a client's request asks for, beside it; return its place.

    Raises:
        ConfigError: either cannot be read, the request is refused, or the certificate exists.
    """
    certificate = read_authority(authority).certify_client(read_request(path), days=days, now=now)
    target = path.with_suffix(".crt")
    try:
        create_file(target, certificate_pem(certificate))
    except FileExistsError:
        raise ConfigError(f"{target}: exists; move it away to sign again") from None
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}") from None
    return target


def read_authority(folder: Path) -> Authority:
    """The authority that ``make_authority`` wrote.

    Raises:
        ConfigError: a file is missing or malformed, or the key is not the certificate's.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no authority here; make one with fedrec keys authority")
    key, certificate = read_key(folder / CA_KEY), read_certificate(folder / CA_CRT)
    if certificate.public_key() != key.public_key():
        raise ConfigError(
            f"{folder}: {CA_CRT} is not the certificate of {CA_KEY}; restore the two that belong together"
        )
    return Authority(key, certificate)


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A private key in PEM or OpenSSH form; its content is never shown.

    Raises:
        ConfigError: missing, unreadable, or not an unencrypted key on NIST P-384.
    """
    data = read_file(path)
    try:
        if data.startswith(b"-----BEGIN OPENSSH"):
            key: object = serialization.load_ssh_private_key(data, None)
        else:
            key = serialization.load_pem_private_key(data, None)
    except _MALFORMED:
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError(f"{path}: expected a private key on NIST P-384 without a password")
    return key


def read_certificate(path: Path) -> x509.Certificate:
    """One certificate.

    Raises:
        ConfigError: missing, unreadable or malformed.
    """
    try:
        return x509.load_pem_x509_certificate(read_file(path))
    except _MALFORMED:
        raise ConfigError(f"{path}: expected a certificate (PEM)") from None


def read_request(path: Path) -> x509.CertificateSigningRequest:
    """One certificate request.

    Raises:
        ConfigError: missing, unreadable or malformed.
    """
    try:
        return x509.load_pem_x509_csr(read_file(path))
    except _MALFORMED:
        raise ConfigError(f"{path}: expected a certificate request (PEM)") from None


def read_node_public(path: Path) -> ec.EllipticCurvePublicKey:
    """The public half of a node's key.

    Raises:
        ConfigError: missing, unreadable, or not such a key on NIST P-384.
    """
    try:
        public: object = serialization.load_ssh_public_key(read_file(path))
    except _MALFORMED:
        public = None
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP384R1):
        raise ConfigError(f"{path}: expected an ECDSA public key on NIST P-384 in OpenSSH form")
    return public


def read_signing_public(path: Path) -> str:
    """The public half of a signing key, 64 hex digits.

    Raises:
        ConfigError: missing, unreadable or malformed.
    """
    text = read_file(path).decode("ascii", errors="replace").strip()
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise ConfigError(f"{path}: expected a public key, 64 hex digits")
    return text


def read_file(path: Path) -> bytes:
    """A small file.

    Raises:
        ConfigError: missing, unreadable or larger than any key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > _LARGEST_FILE:
        raise ConfigError(f"{path}: larger than {_LARGEST_FILE} bytes; not a key or certificate")
    return data


def certificate_pem(certificate: x509.Certificate) -> str:
    """A certificate as text; public."""
    return certificate.public_bytes(_PEM).decode("ascii")


@contextmanager
def _filling(folder: Path) -> Iterator[list[Path]]:
    """A new or empty folder that ends with all of its files, or with none; yields the list of those made."""
    made: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder}: not empty; nothing is overwritten: choose another place")
        folder.chmod(0o700)
        yield made
        sync_folder(folder)
    except BaseException as error:
        for path in made:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ConfigError(f"{folder}: keys cannot be written: {error.strerror}") from None
        raise


def _write(folder: Path, files: Mapping[str, str], made: list[Path]) -> None:
    for name, text in files.items():
        made.append(folder / name)
        try:
            create_file(folder / name, text)
        except FileExistsError:  # of two that race for a folder the second stops here, and leaves the first's alone
            made.pop()
            raise


def _signing_key(path: Path, made: list[Path]) -> str:
    """Make a signing key; a half-written one is removed with the rest."""
    made.append(path)
    return SigningKey.create(path).public


def _kept(path: Path) -> str:
    """The text of a signing key that is one."""
    SigningKey.load(path)
    return read_file(path).decode("ascii")


def _pkcs8(key: ec.EllipticCurvePrivateKey) -> str:
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(_PEM, form, plain).decode("ascii")


def _openssh(key: ec.EllipticCurvePrivateKey) -> str:
    form, plain = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    return key.private_bytes(_PEM, form, plain).decode("ascii")


def _openssh_public(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, form).decode("ascii")
