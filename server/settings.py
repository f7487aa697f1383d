"""``server.toml``: where a server listens, where its keys lie and where it keeps what it must not forget."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedrec.config import read_toml
from fedrec.errors import ConfigError
from fedrec.keyfiles import CA_CRT, SERVER_KEY, TLS_CRT, TLS_KEY
from server.gateway_settings import GatewaySettings
from server.loopback import Loopback

_DECIDED_ABOVE = frozenset(("port", "private_port"))
LIMITS = frozenset(
    field.name
    for field in fields(GatewaySettings)
    if isinstance(field.default, int | float) and field.name not in _DECIDED_ABOVE
)

Port = Annotated[int, Field(ge=1, le=65535)]
Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ServerSettings(BaseModel):
    """One server's settings, frozen; read with ``load_server_settings``. Paths are absolute once read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: Path = Field(description="folder of fedrec keys server")
    state: Path = Field(description="folder for the database, the registry and the logs; made when missing")
    host: str = Field("0.0.0.0", description="address that clients reach", min_length=1)  # noqa: S104  # a server
    port: Port = Field(GatewaySettings.port, description="port that clients reach")
    private_port: Port = Field(GatewaySettings.private_port, description="health and metrics, on loopback alone")
    superlink_port: Port = Field(9465, description="Flower's SuperLink, on loopback alone")
    mutual_tls: bool = Field(False, description="clients must show a certificate of the authority in ca.crt")
    gateway: dict[str, Limit] = Field(default_factory=dict, description="limits that differ from the gateway's own")

    @property
    def server_key(self) -> Path:
        """Where the key lies with which the server signs; its public half is what clients pin."""
        return self.keys / SERVER_KEY

    @property
    def loopback(self) -> Loopback:
        """How SuperLink is reached on this machine."""
        return Loopback(self.state, self.superlink_port)

    def gateway_settings(self) -> GatewaySettings:
        """What the gateway needs to stand before SuperLink.

        Raises:
            ConfigError: a limit means nothing.
        """
        return GatewaySettings(
            certificate=self.keys / TLS_CRT,
            key=self.keys / TLS_KEY,
            upstream=f"https://{self.loopback.address}",
            upstream_ca=self.loopback.authority,
            client_ca=self.keys / CA_CRT if self.mutual_tls else None,
            host=self.host,
            port=self.port,
            private_port=self.private_port,
            **_typed(self.gateway),
        )


def load_server_settings(path: Path) -> ServerSettings:
    """Read ``server.toml``; a relative path in it is relative to the file's own folder.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key, a value out of range, a missing key file.
    """
    values = read_toml(path)
    try:
        read = ServerSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg']}") from None
    unknown = sorted(read.gateway.keys() - LIMITS)
    if unknown:
        raise ConfigError(f"{path}: gateway.{unknown[0]}: expected one of {', '.join(sorted(LIMITS))}")
    ports = (read.port, read.private_port, read.superlink_port)
    if len(set(ports)) < len(ports):
        raise ConfigError(f"{path}: port, private_port and superlink_port: expected three different numbers")
    home = path.resolve().parent
    settings = read.model_copy(update={"keys": home / read.keys, "state": home / read.state})
    for name in (TLS_CRT, TLS_KEY, CA_CRT, SERVER_KEY):
        if not (settings.keys / name).is_file():
            raise ConfigError(f"{path}: keys={settings.keys}: no {name} there; make it with fedrec keys server")
    settings.gateway_settings()
    return settings


def _typed(limits: dict[str, float]) -> dict[str, Any]:
    """The limits as whole numbers where the gateway's own is one.

    Raises:
        ConfigError: a whole number was expected.
    """
    whole = {field.name for field in fields(GatewaySettings) if isinstance(field.default, int)}
    for name in whole & limits.keys():
        if not limits[name].is_integer():
            raise ConfigError(f"gateway.{name}={limits[name]}: expected a whole number")
    return {name: int(value) if name in whole else value for name, value in limits.items()}
