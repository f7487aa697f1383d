"""``client.toml``: where one merchant keeps what a client needs. Every path in it is relative to the file."""

from pathlib import Path
from typing import Annotated, Any, Self, cast

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedrec.certificates import check_name
from fedrec.config import read_toml
from fedrec.errors import ConfigError
from fedrec.privacy.durable import replace_file
from fedrec.privacy.ledger import LedgerFiles

FILE = "client.toml"


def _known_name(name: str) -> str:
    try:
        return check_name(name)
    except ConfigError as error:
        raise ValueError(str(error)) from None


class ClientSettings(BaseModel):
    """One client's own settings, frozen; read with ``load_client_settings``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(_known_name)] = Field(description="what the operator calls this client; public")
    dataset: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="identity of this merchant's people in the ledger, whatever events are added; never change it"
    )
    events: Path | None = Field(
        None, description="CSV or Parquet of this merchant's events; read at each start, never sent"
    )
    store: Path | None = Field(
        None, description="or the shop's own store of events; read at each start, never sent; needs its .key beside it"
    )
    federation: Path = Field(Path("federation"), description="folder of the invitation that was accepted")
    keys: Path = Field(Path("keys"), description="folder of this client's keys; the .key files are for nobody else")
    policy: Path = Field(Path("policy.toml"), description="what this client allows, whatever a server asks")
    ledger: Path = Field(
        Path("ledger.sqlite"),
        description="record of privacy spent; its key, witness and the last replies lie beside it",
    )
    not_private: bool = Field(
        False, description="true takes part without any privacy: no policy, no noise, nobody is protected"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="our event field = the file's column, for names that differ"
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.events is None) == (self.store is None):
            raise ValueError("events or store: expected one of the two")
        if self.store is not None and self.columns:
            raise ValueError("columns: a store has no columns to name; leave the table empty")
        return self

    @property
    def source(self) -> Path:
        """Where the events are."""
        return cast("Path", self.events or self.store)  # one of them, as checked

    @property
    def ledger_files(self) -> LedgerFiles:
        return LedgerFiles.beside(self.ledger)

    @property
    def replies(self) -> Path:
        """Folder of the last replies. The ledger's: whoever else counts on it must find what was answered already."""
        return self.ledger.resolve().with_suffix(".replies")

    def below(self, folder: Path) -> Self:
        """The same with every path taken from ``folder``."""
        return self.model_copy(update={name: folder / value for name, value in self if isinstance(value, Path)})


def load_client_settings(path: Path) -> ClientSettings:
    """Read ``client.toml``; paths come back as they are from here.

    Raises:
        ConfigError: unreadable, not TOML, or a setting is missing, unknown or malformed; names the first.
    """
    return _checked(read_toml(path), source=str(path)).below(path.parent)


def write_client_settings(path: Path, **values: Any) -> None:
    """Write ``client.toml`` with a comment above each setting; those that are not named get their default, or are
    left out where there is none.

    Raises:
        ConfigError: a value is malformed, or the file cannot be written.
    """
    settings = _checked(values, source=str(path))
    lines = ["# What this client needs to take part. Every path is relative to this file."]
    for name, value in settings.model_dump(mode="json", exclude_none=True).items():
        lines += ["", f"# {ClientSettings.model_fields[name].description}"]
        lines += [f"[{name}]", tomli_w.dumps(value).rstrip()] if isinstance(value, dict) else [_line(name, value)]
    try:
        replace_file(path, "\n".join(lines).rstrip() + "\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def _line(name: str, value: object) -> str:
    return tomli_w.dumps({name: value}).rstrip()


def _checked(values: dict[str, Any], *, source: str) -> ClientSettings:
    try:
        return ClientSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{source}: {where + ': ' if where else ''}{first['msg']}") from None
