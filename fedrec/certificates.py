"""A private certificate authority: who is the server, and which clients may connect.

A certificate says whose key it is; no public authority is asked. All keys are ECDSA on NIST P-384,
the curve that Python's TLS, OpenSSH and Flower's node authentication all take.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedrec.errors import ConfigError

MAX_DAYS = 3650
_CLOCK_SKEW = timedelta(hours=1)  # a certificate made now also holds on a machine whose clock is late
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MAX_HOST = 253


@dataclass(frozen=True)
class Authority:
    """What signs certificates: the key is secret, the certificate is what others are given to trust."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls, *, days: int, now: datetime) -> "Authority":
        """Make an authority that may sign certificates, but no further authority.

        Raises:
            ConfigError: ``days`` is out of range.
        """
        key = new_key()
        # Two authorities in one file of trusted ones are told apart by this name.
        name = f"fedrec authority {x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:8]}"
        builder = _builder(key.public_key(), issuer=_named(name), subject=_named(name), signer=key)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        return cls(key, _valid(builder, days=days, now=now).sign(key, hashes.SHA384()))

    def certify_server(
        self, key: ec.EllipticCurvePublicKey, hosts: Sequence[str], *, days: int, now: datetime
    ) -> x509.Certificate:
        """Say that ``key`` serves ``hosts``: names or IP addresses, at least one.

        Raises:
            ConfigError: a host is malformed, or the authority expires first.
        """
        if not hosts:
            raise ConfigError("host: expected at least one name or IP address that clients connect to")
        names = x509.SubjectAlternativeName([_host(text) for text in dict.fromkeys(hosts)])
        builder = self._leaf(key, name="fedrec server", purpose=ExtendedKeyUsageOID.SERVER_AUTH)
        return self._sign(builder.add_extension(names, critical=False), days=days, now=now)

    def certify_client(self, request: x509.CertificateSigningRequest, *, days: int, now: datetime) -> x509.Certificate:
        """Let the owner of a request connect as a client. Of what it asks, only its name is taken.

        Raises:
            ConfigError: the request is not one that fedrec makes, or the authority expires first.
        """
        name, key = requested_name(request), request.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            raise ConfigError("certificate request: expected a key on NIST P-384, as fedrec keys client makes it")
        builder = self._leaf(key, name=name, purpose=ExtendedKeyUsageOID.CLIENT_AUTH)
        return self._sign(builder, days=days, now=now)

    def _leaf(
        self, key: ec.EllipticCurvePublicKey, *, name: str, purpose: x509.ObjectIdentifier
    ) -> x509.CertificateBuilder:
        """A certificate that signs no other and is good for one purpose."""
        builder = _builder(key, issuer=self.certificate.subject, subject=_named(name), signer=self.key)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        return builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)

    def _sign(self, builder: x509.CertificateBuilder, *, days: int, now: datetime) -> x509.Certificate:
        left = (self.certificate.not_valid_after_utc - now).days
        if left < 1:
            raise ConfigError(
                f"authority: expires on {self.certificate.not_valid_after_utc:%Y-%m-%d}; "
                "make a new one with fedrec keys authority, and give its ca.crt to all"
            )
        if days > left:
            raise ConfigError(f"days={days}: expected <= {left}, when the authority itself expires")
        return _valid(builder, days=days, now=now).sign(self.key, hashes.SHA384())


def new_key() -> ec.EllipticCurvePrivateKey:
    """A private key from the operating system's entropy."""
    return ec.generate_private_key(ec.SECP384R1())


def new_request(key: ec.EllipticCurvePrivateKey, name: str) -> x509.CertificateSigningRequest:
    """Ask for a certificate for ``name``; public, and signed by ``key`` to show that the asker has it.

    Raises:
        ConfigError: the name is malformed.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(_named(check_name(name)))
    return builder.sign(key, hashes.SHA384())


def requested_name(request: x509.CertificateSigningRequest) -> str:
    """The name a request asks for.

    Raises:
        ConfigError: the request is not signed by its own key, or asks for no or another kind of name.
    """
    try:
        is_signed = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):  # a kind of key that is not known
        is_signed = False
    if not is_signed:
        raise ConfigError("certificate request: not signed by its own key; ask for it again")
    names = [part.value for part in request.subject]
    if len(names) != 1 or not request.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        raise ConfigError("certificate request: expected one common name and nothing else, as fedrec keys client asks")
    return check_name(str(names[0]))


def check_name(name: str) -> str:
    """Return a client's name as it is.

    Raises:
        ConfigError: it is not 1 to 64 of the characters that are safe in files, logs and commands.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"name={name[:80]!r}: expected 1 to 64 letters, digits, dots, hyphens or underscores")
    return name


def certified_hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    """The host names and addresses that a server's certificate is for; none where it names none.

    Raises:
        ConfigError: its extensions are malformed.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except ValueError:
        raise ConfigError("certificate: its extensions are malformed; make another") from None
    return tuple(str(name.value) for name in names)


def certified_name(host: str) -> str:
    """A host as ``certified_hosts`` spells it.

    Raises:
        ConfigError: it is malformed.
    """
    return str(_host(host).value)


def _host(text: str) -> x509.GeneralName:
    """A host as certificates name it; what looks like an address must be one."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        labels = text.lower().split(".")
    if len(text) > _MAX_HOST or labels[-1].isdigit() or not all(_LABEL.fullmatch(label) for label in labels):
        raise ConfigError(f"host={text[:80]!r}: expected a host name or an IP address, without port or wildcard")
    return x509.DNSName(text.lower())


def _builder(
    key: ec.EllipticCurvePublicKey, *, issuer: x509.Name, subject: x509.Name, signer: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    """What every certificate holds; both key identifiers, because strict verifiers ask for them."""
    mine = x509.SubjectKeyIdentifier.from_public_key(key)
    signers = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = x509.CertificateBuilder().issuer_name(issuer).subject_name(subject).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.add_extension(mine, critical=False).add_extension(signers, critical=False)


def _valid(builder: x509.CertificateBuilder, *, days: int, now: datetime) -> x509.CertificateBuilder:
    if not 1 <= days <= MAX_DAYS:
        raise ConfigError(f"days={days}: expected 1 to {MAX_DAYS}")
    return builder.not_valid_before(now - _CLOCK_SKEW).not_valid_after(now + timedelta(days=days))


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """An authority signs certificates and lists of revoked ones, everybody else signs handshakes."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
