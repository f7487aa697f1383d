"""The connection to a search engine: where it may lead, what it carries, and what may come back."""

import json
import os
from typing import Any
from urllib.parse import urlsplit

import httpx

from fedrec.errors import ConfigError

AUTHORIZATION = "FEDREC_SEARCH_AUTHORIZATION"  # of the environment: the header's value, such as "ApiKey ..."
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LONGEST_ANSWER = 16_000_000  # bytes


class EngineError(Exception):
    """The engine cannot be used as it is; says why, and nothing that was asked."""


class EngineLink:
    """Asks an engine. TLS is verified, no redirect is followed, no proxy of the environment is used."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """Check the address; nothing is sent yet.

        Args:
            url: ``https://HOST[:PORT]``, or ``http://`` on this machine, perhaps with a path.
            timeout_s: for each step of a request: connecting, sending, waiting for more.

        Raises:
            ConfigError: another kind of address, or one with a name and password in it.
        """
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ConfigError("--search-engine: expected https://HOST:PORT") from None
        if "@" in parts.netloc:
            raise ConfigError(f"--search-engine: others can read a command line; put the secret into {AUTHORIZATION}")
        if not host or parts.query or parts.fragment or parts.scheme not in ("http", "https"):
            raise ConfigError(f"--search-engine {url}: expected https://HOST:PORT")
        if parts.scheme == "http" and host not in _LOOPBACK:
            raise ConfigError(f"--search-engine {url}: expected https beyond this machine")
        self.url, self._timeout_s = url.rstrip("/"), timeout_s
        secret = os.environ.get(AUTHORIZATION)
        try:
            self._client = httpx.Client(
                timeout=timeout_s,
                follow_redirects=False,
                trust_env=False,
                headers={"Authorization": secret} if secret else {},
            )
        except (ValueError, TypeError):  # its text would hold the secret
            raise ConfigError(f"{AUTHORIZATION}: not a header's value, such as ApiKey KEY") from None

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        body: dict | list[dict] | None = None,
        *,
        timeout_s: float | None = None,
        allow: str | None = None,
    ) -> dict[str, Any]:
        """One request and its JSON object.

        Args:
            body: an object, or several, one a line.
            timeout_s: another than the link's.
            allow: type of an error that is an answer like any other.

        Raises:
            EngineError: no answer, an error, or no JSON object of a bearable length.
        """
        lines = [] if body is None else body if isinstance(body, list) else [body]
        content = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
        kind = "application/x-ndjson" if isinstance(body, list) else "application/json"
        status, answer = self._send(method, path, content, kind, timeout_s or self._timeout_s)
        try:
            found = json.loads(answer)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and 200 <= status < 300 and not found.get("timed_out"):
            return found
        error = found.get("error") if isinstance(found, dict) else None
        if allow and isinstance(error, dict) and error.get("type") == allow:
            return {}
        why = {401: f" (set {AUTHORIZATION})", 403: " (it may not do this)", 429: " (too busy)"}.get(status, "")
        raise EngineError(f"answers {status}{why}" if not 200 <= status < 300 else "answers nothing usable")

    def _send(self, method: str, path: str, content: bytes, kind: str, timeout_s: float) -> tuple[int, bytes]:
        headers = {"Content-Type": kind} if content else {}
        try:
            with self._client.stream(
                method, self.url + path, content=content, headers=headers, timeout=timeout_s
            ) as response:
                answer = b""
                for chunk in response.iter_bytes():
                    answer += chunk
                    if len(answer) > _LONGEST_ANSWER:
                        raise EngineError("answers too much")
                return response.status_code, answer
        except httpx.HTTPError as error:
            raise EngineError(f"does not answer ({type(error).__name__})") from None
