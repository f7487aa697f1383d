"""What an operator can check of a server, running or not."""

import ssl
import stat
from datetime import datetime

import httpx

from fedrec.certificates import certified_hosts
from fedrec.doctor import Check, Finding, check_keys, failed, is_free, ok, warning
from fedrec.keycheck import WARN_DAYS
from fedrec.keyfiles import CA_CRT, TLS_CRT, read_certificate
from fedrec.reaching import check_reach
from server.gateway_settings import PRIVATE_HOST
from server.loopback import HOST
from server.registry import load_registry
from server.settings import ServerSettings


def server_checks(settings: ServerSettings, *, now: datetime) -> dict[str, Check]:
    """What to look at, by name; ``now`` is UTC."""
    health = _health(settings)
    checks: dict[str, Check] = {
        "keys": lambda: check_keys(settings.keys, now=now),
        "state": lambda: _check_state(settings),
        "clients": lambda: _check_clients(settings, now=now),
        "ports": lambda: _check_ports(settings, running=health is not None),
    }
    if health is not None:  # with keys that can be used, then
        checks["health"] = lambda: [_told(health)]
        checks["server"] = lambda: _check_reach(settings, now=now)
    return checks


def _health(settings: ServerSettings) -> dict[str, str] | None:
    """What a running server says of itself; None when there is none."""
    try:
        answer = httpx.get(f"http://{PRIVATE_HOST}:{settings.private_port}/health", timeout=5.0, trust_env=False)
        said = answer.json()
    except (httpx.HTTPError, ValueError):
        return None
    return said if isinstance(said, dict) and "gateway" in said else None


def _told(health: dict[str, str]) -> Finding:
    if health.get("upstream") == "ok":
        return ok("health", "gateway and SuperLink are up")
    return failed("health", "SuperLink is down", "it is started again within two minutes; else see superlink.log")


def _check_state(settings: ServerSettings) -> list[Finding]:
    folder = settings.state
    if not folder.exists():
        return [ok("state", f"{folder}: made at the first start")]
    if not folder.is_dir():
        return [failed("state", f"{folder}: not a folder", "set another state in server.toml")]
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        return [failed("state", f"{folder}: others may look in (mode {mode:04o})", f"chmod 700 {folder}")]
    return [ok("state", f"{folder}: its owner's alone")]


def _check_clients(settings: ServerSettings, *, now: datetime) -> list[Finding]:
    members = load_registry(settings.state).members if settings.state.is_dir() else ()
    active = [member for member in members if member.is_active(now)]
    soon = [
        f"{one.name} on {one.expires_on}"
        for one in active
        if one.expires_on is not None and (one.expires_on - now.date()).days < WARN_DAYS
    ]
    if not active:
        return [warning("clients", "nobody is enrolled", "fedrec enrol add NAME --node-key ... --reply-key ...")]
    if soon:
        return [warning("clients", f"{len(active)} enrolled; expire soon: {', '.join(soon)}", "enrol new keys of them")]
    return [ok("clients", f"{len(active)} enrolled")]


def _check_ports(settings: ServerSettings, *, running: bool) -> list[Finding]:
    if running:
        return [ok("ports", "in use by the server that runs")]
    ports = {
        "port": (settings.host, settings.port),
        "private_port": (PRIVATE_HOST, settings.private_port),
        "superlink_port": (HOST, settings.superlink_port),
    }
    taken = [f"{name}={port} on {host}" for name, (host, port) in ports.items() if not is_free(host, port)]
    if taken:
        mend = "stop the other program, or set other ports in server.toml"
        return [failed("ports", f"cannot listen: {', '.join(taken)}", mend)]
    return [ok("ports", f"{', '.join(str(port) for _, port in ports.values())} are free; no server runs")]


def _check_reach(settings: ServerSettings, *, now: datetime) -> list[Finding]:
    """As a client would, under the first name that the certificate is for."""
    hosts = certified_hosts(read_certificate(settings.keys / TLS_CRT))
    if settings.mutual_tls:
        return [ok("server", "asks clients for certificates: run fedrec doctor on a client's machine")]
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104  # all of its addresses
    tls = ssl.create_default_context(cafile=settings.keys / CA_CRT)
    return check_reach(here, settings.port, tls=tls, now=now, name=hosts[0])
