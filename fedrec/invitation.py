"""What an operator hands to merchants: everything public that a client needs, and nothing secret.

invitation.toml   where the server is, how histories are cut, the SHA-256 of every other file
agreement.json    the privacy plan and the numbers of local training
base/             the frozen public base
catalogue.parquet the items and their text, in the base's order
ca.crt            the authority that signed the server's certificate

The fingerprint of ``invitation.toml`` covers it all: a merchant who compares it with the operator over another
channel has the operator's invitation.
"""

import errno
import hashlib
import os
import re
import shutil
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedrec.certificates import check_name
from fedrec.data.catalogue import Catalogue, write_catalogue
from fedrec.errors import ConfigError, RunError
from fedrec.runfolder import write_text

if TYPE_CHECKING:
    from fedrec.agreement import Agreement

INVITATION = "invitation"  # folder in that of the federation
FILE, CATALOGUE, CA_CRT = "invitation.toml", "catalogue.parquet", "ca.crt"
# Every file there is, and how large it may be: an invitation comes from somebody else.
LARGEST = {
    "agreement.json": 2**20,
    "base/items.safetensors": 8 * 2**30,
    "base/ranker.safetensors": 32 * 2**30,
    "base/ranker.json": 2**20,
    "base/pairs.safetensors": 2**30,
    CATALOGUE: 8 * 2**30,
    CA_CRT: 2**16,
}
_LARGEST_TOML = 2**16
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>[0-9]{1,5})")
_CHUNK = 2**20

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Terms(BaseModel):
    """The content of ``invitation.toml``; public."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = Field(1, description="of this file's format")
    name: str = Field(description="of the federation")
    address: str = Field(description="HOST:PORT of the server; always TLS")
    server_key: Hex = Field(description="Ed25519 public key of the server, which clients pin")
    min_events: Annotated[int, Field(ge=1)] = Field(description="people with fewer events are left out")
    max_history: Annotated[int, Field(ge=1)] = Field(description="events kept per person, the latest")
    sha256: dict[str, Hex] = Field(description="of every other file")


@dataclass(frozen=True)
class Invitation:
    """A folder whose every file is the one that its terms name.

    Attributes:
        folder: laid out so that ``read_agreement`` and ``load_base`` take it for a run's.
        terms: what ``invitation.toml`` says.
        fingerprint: SHA-256 of ``invitation.toml``, hex; stands for the whole invitation.
    """

    folder: Path
    terms: Terms
    fingerprint: str

    @property
    def catalogue(self) -> Path:
        return self.folder / CATALOGUE

    @property
    def authority(self) -> Path:
        """The certificate that the server's must be signed by."""
        return self.folder / CA_CRT

    def agreement(self) -> "Agreement":
        """What is agreed on, checked anew.

        Raises:
            RunError: damaged, of another base, or of another server than the terms name.
            PrivacyError: the plan's noise does not give its epsilon.
        """
        from fedrec.agreement import read_agreement  # torch comes with it

        agreement = read_agreement(self.folder)
        if agreement.server_key != self.terms.server_key:
            raise RunError(f"{self.folder / FILE}: server_key is not the one in agreement.json; ask for a whole one")
        return agreement


def write_invitation(
    folder: Path,
    run: Path,
    *,
    name: str,
    catalogue: Catalogue,
    authority: Path,
    address: str,
    min_events: int,
    max_history: int,
) -> Invitation:
    """Write an invitation to a prepared run.

    Args:
        folder: new, or empty.
        run: with ``agreement.json`` and ``base/``.
        name: of the federation.
        catalogue: what the base was made for, in the same order; only ids and text go out.
        authority: the certificate that merchants will trust.
        address: HOST:PORT.
        min_events: people with fewer events are left out.
        max_history: events kept per person, the latest.

    Raises:
        ConfigError: the address or the name is malformed.
        RunError: the run is not prepared, or the disk refuses.
    """
    from fedrec.agreement import read_agreement

    split_address(address)
    agreement = read_agreement(run)
    (folder / "base").mkdir(parents=True, exist_ok=True)
    write_catalogue(catalogue.text_only(), folder / CATALOGUE)
    sources = {file: run / file for file in LARGEST if file != CATALOGUE} | {CA_CRT: authority}
    try:
        for file, source in sources.items():
            shutil.copyfile(source, folder / file)
    except OSError as error:
        raise RunError(f"{error.filename}: the invitation cannot be written: {error.strerror}") from None
    terms = Terms(
        version=1,
        name=check_name(name),
        address=address,
        server_key=agreement.server_key,
        min_events=min_events,
        max_history=max_history,
        sha256={file: _digest(folder, file, largest) for file, largest in LARGEST.items()},
    )
    write_text(folder / FILE, tomli_w.dumps(terms.model_dump(mode="json")))
    return read_invitation(folder)


def read_invitation(folder: Path) -> Invitation:
    """Read an invitation and check every file of it; whatever else lies in the folder is not looked at.

    Raises:
        RunError: a file is missing, changed, too large or a link; names it.
        ConfigError: ``invitation.toml`` does not say what it should.
    """
    data = _read_terms(folder)
    path = folder / FILE
    try:
        terms = Terms.model_validate(tomllib.loads(data.decode("utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg']}; ask the operator for a whole invitation") from None
    except (ValueError, RecursionError):  # not UTF-8, not TOML, or nested beyond reading
        raise ConfigError(f"{path}: not TOML; ask the operator for a whole invitation") from None
    split_address(terms.address)
    check_name(terms.name)
    if set(terms.sha256) != set(LARGEST):
        raise ConfigError(f"{path}: sha256: expected exactly {', '.join(LARGEST)}")
    for file, largest in LARGEST.items():
        if _digest(folder, file, largest) != terms.sha256[file]:
            raise RunError(
                f"{folder / file}: was changed since the invitation was made; ask the operator for a whole one"
            )
    return Invitation(folder, terms, hashlib.sha256(data).hexdigest())


def copy_invitation(invitation: Invitation, target: Path) -> Invitation:
    """Copy an invitation into a new folder, and check the copy.

    Raises:
        RunError: the disk refuses, or the invitation was changed on the way.
    """
    try:
        (target / "base").mkdir(parents=True)
        for file in (FILE, *LARGEST):
            shutil.copyfile(invitation.folder / file, target / file, follow_symlinks=False)
    except OSError as error:
        raise RunError(f"{error.filename}: the invitation cannot be copied: {error.strerror}") from None
    copy = read_invitation(target)
    if copy.fingerprint != invitation.fingerprint:
        raise RunError(f"{invitation.folder}: was changed while it was copied; try again")
    return copy


def split_address(address: str) -> tuple[str, int]:
    """``HOST:PORT`` as its two parts; an IPv6 address comes in brackets and leaves without.

    Raises:
        ConfigError: it is anything else, such as a URL.
    """
    found = _ADDRESS.fullmatch(address)
    if not found or not 1 <= int(found["port"]) <= 65535:
        raise ConfigError(f"address={address[:80]!r}: expected HOST:PORT, such as fedrec.example.org:8443")
    return found["host"].strip("[]"), int(found["port"])


def _read_terms(folder: Path) -> bytes:
    with _opened(folder, FILE) as file:
        data = file.read(_LARGEST_TOML + 1)
    if len(data) > _LARGEST_TOML:
        raise RunError(f"{folder / FILE}: larger than {_LARGEST_TOML} bytes; not an invitation")
    return data


def _digest(folder: Path, file: str, largest: int) -> str:
    """SHA-256 of a file of at most ``largest`` bytes, hex."""
    digest, size = hashlib.sha256(), 0
    with _opened(folder, file) as stream:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            if size > largest:
                raise RunError(f"{folder / file}: larger than {largest} bytes; not part of an invitation")
            digest.update(chunk)
    return digest.hexdigest()


def _opened(folder: Path, file: str) -> BinaryIO:
    """Open a plain file below ``folder``, reached through no link."""
    path = folder / file
    try:
        if path.parent != folder and path.parent.is_symlink():
            raise RunError(f"{path.parent}: is a link; expected a folder")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        why = "is a link" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        raise RunError(f"{path}: {why}; expected a whole invitation") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunError(f"{path}: is not a file; expected a whole invitation")
    return os.fdopen(descriptor, "rb")
