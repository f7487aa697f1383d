"""Can the server be reached, is it the right one, and do the clocks agree? Asked without a key and without trust."""

import socket
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from cryptography import x509

from fedrec.doctor import Finding, failed, ok, warning
from fedrec.keycheck import WARN_DAYS

TIMEOUT_S = 10.0
MAX_SKEW_S = 300  # Flower's, of a signed request; ours, of an instruction
_PATH = "/v1/fleet/pull-messages"
_CERTIFICATE = "if it asks for client certificates (mutual_tls), put one by its authority at keys/tls.crt"


def check_reach(host: str, port: int, *, tls: ssl.SSLContext, now: datetime, name: str = "") -> list[Finding]:
    """Look up, connect, shake hands, ask one unsigned question.

    Args:
        host: name or IP address.
        port: of the gateway.
        tls: whom to trust, and what to show.
        now: when to judge certificates by, UTC; the clocks are compared when the answer comes.
        name: that the certificate must be for; ``host`` unless said otherwise.

    Returns:
        The first thing that fails, or all that hold.
    """
    try:
        connection = socket.create_connection((host, port), timeout=TIMEOUT_S)
    except OSError as error:
        return [failed("server", f"{host}:{port}: {_why(error)}", _MENDS.get(type(error), "ask the operator"))]
    with connection:
        try:
            with tls.wrap_socket(connection, server_hostname=name or host) as secure:
                lasts = _lasts(secure.getpeercert(binary_form=True), now=now)
        except ssl.SSLCertVerificationError as error:
            return [failed("certificate", f"{host}:{port}: {error.verify_message}", _mend_certificate(error))]
        except OSError as error:
            mend = "is this the port that clients reach, and nothing between that opens TLS?"
            return [failed("certificate", f"{host}:{port}: no TLS handshake ({type(error).__name__})", mend)]
    return [*lasts, *_ask(host, port, tls, name=name or host)]


def check_clock(shown: str | None, *, now: datetime) -> list[Finding]:
    """Compare this clock with the server's ``Date``; more than five minutes apart, neither believes the other."""
    try:
        theirs = parsedate_to_datetime(shown or "")
        theirs = theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)  # as a date of HTTP is
    except ValueError:
        return [warning("clock", "the server does not say what time it is", "compare the clocks by hand")]
    apart = round((now - theirs).total_seconds())
    said = f"{abs(apart)} s {'ahead of' if apart > 0 else 'behind'} the server's" if apart else "as the server's"
    mend = "set the clock by NTP, here or there: timedatectl set-ntp true"
    if abs(apart) > MAX_SKEW_S:
        return [failed("clock", f"{said}: more than {MAX_SKEW_S} s, so every request is refused (401)", mend)]
    return [warning("clock", said, mend)] if abs(apart) > MAX_SKEW_S // 5 else [ok("clock", said)]


def _ask(host: str, port: int, tls: ssl.SSLContext, *, name: str) -> list[Finding]:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        with httpx.Client(verify=tls, timeout=TIMEOUT_S, trust_env=False) as client:
            headers, under = {"content-type": "application/protobuf"}, {"sni_hostname": name}
            answer = client.post(f"https://{address}{_PATH}", content=b"", headers=headers, extensions=under)
    except httpx.HTTPError as error:
        mend = "try again; then ask the operator"
        if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):  # TLS 1.3 says it only after the handshake
            mend = f"{_CERTIFICATE}; else {mend}"
        return [failed("server", f"{address}: no answer ({type(error).__name__})", mend)]
    clock = check_clock(answer.headers.get("date"), now=datetime.now(UTC))
    if answer.status_code == 401:  # it wants to know who asks: as it should
        return [ok("server", f"{address} answers, and asks for a key"), *clock]
    said, mend = _STATUS.get(answer.status_code, (f"HTTP {answer.status_code}", "is a fedrec server behind this port?"))
    return [failed("server", f"{address}: {said}", mend), *clock]


def _lasts(certificate: bytes | None, *, now: datetime) -> list[Finding]:
    ends = x509.load_der_x509_certificate(certificate or b"").not_valid_after_utc
    days = (ends - now.astimezone(UTC)).days
    said = f"the server's holds for {days} days, until {ends:%Y-%m-%d}"
    if days < WARN_DAYS:
        return [warning("certificate", said, "the operator renews it: fedrec keys server --keep")]
    return [ok("certificate", said)]


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _mend_certificate(error: ssl.SSLCertVerificationError) -> str:
    known = {
        10: "the operator renews it: fedrec keys server --keep",
        9: "is this machine's clock right?",
        62: "connect by a name that the certificate is for, or have the operator add --host",
        64: "connect by a name that the certificate is for, or have the operator add --host",
    }
    return known.get(error.verify_code, "this is not the server of the authority in ca.crt: compare with the operator")


_MENDS: dict[type[OSError], str] = {
    socket.gaierror: "is the address right? ask the operator",
    ConnectionRefusedError: "nobody listens there: is the server started?",
    TimeoutError: "a firewall lets nothing through: open the port",
}
_STATUS = {
    403: ("it does not let clients in", "this is no gateway of fedrec, or another port of it"),
    429: ("too many requests from this address", "wait a minute"),
    502: (
        "the gateway is there, SuperLink behind it is not",
        "the operator looks at superlink.log in the state folder",
    ),
    503: ("the gateway has no room", "try again; then ask the operator"),
    504: ("SuperLink does not answer the gateway", "the operator looks at superlink.log in the state folder"),
}
