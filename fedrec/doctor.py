"""Is this machine ready? What both sides have in common; each finding says what is wrong and how to mend it."""

import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from fedrec.errors import FedrecError
from fedrec.keycheck import look_at

LEAST_PYTHON = (3, 11)
LITTLE_DISK_BYTES = 2 * 2**30
LEAST_DISK_BYTES = 2**28
_SHOWN = ("flwr", "opacus", "torch")
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*(?P<bounds>[<>=!,.\s\w*]*)")
_COMPARE: Mapping[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": lambda one, other: one >= other,
    "<=": lambda one, other: one <= other,
    "==": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    ">": lambda one, other: one > other,
    "<": lambda one, other: one < other,
}


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: what was looked at, in a word or two.
        state: whether it holds; a warning does not hold anything up yet.
        said: what was found.
        mend: what to do; empty when nothing is.
    """

    check: str
    state: State
    said: str
    mend: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The same, as JSON has it."""
        return asdict(self)


Check = Callable[[], Iterable[Finding]]


def ok(check: str, said: str) -> Finding:
    """Nothing to do."""
    return Finding(check, State.OK, said)


def warning(check: str, said: str, mend: str) -> Finding:
    """Works today."""
    return Finding(check, State.WARNING, said, mend)


def failed(check: str, said: str, mend: str) -> Finding:
    """Does not work."""
    return Finding(check, State.FAILED, said, mend)


def examine(checks: Mapping[str, Check]) -> list[Finding]:
    """Make every check; one that raises our own error has failed, with that error's words. No check stops another."""
    findings: list[Finding] = []
    for name, check in checks.items():
        try:
            findings += check()
        except FedrecError as error:
            said, _, mend = str(error).rpartition("; ")
            findings.append(failed(name, said or mend, mend if said else "see what the message names"))
    return findings


def environment_checks(folder: Path) -> dict[str, Check]:
    """What can be said of any machine; ``folder`` is where files will be written."""
    return {
        "python": check_python,
        "packages": check_packages,
        "disk": lambda: check_disk(folder),
        "gpu": check_gpu,
    }


def check_python() -> list[Finding]:
    """Whether this Python is new enough."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < LEAST_PYTHON:
        return [failed("python", version, "install Python 3.11 or newer")]
    return [ok("python", version)]


def check_packages() -> list[Finding]:
    """Whether every package that fedrec needs is there, in the versions that were found to work."""
    try:
        required = metadata.requires("fedrec") or []
    except metadata.PackageNotFoundError:
        return [warning("packages", "fedrec is not installed, so its bounds are not known", "pip install fedrec")]
    wrong = [problem for line in required if ";" not in line and (problem := _out_of_bounds(line))]
    shown = ", ".join(f"{name} {metadata.version(name)}" for name in _SHOWN if not _is_missing(name))
    return wrong or [ok("packages", f"all {len([line for line in required if ';' not in line])} in bounds; {shown}")]


def check_disk(folder: Path) -> list[Finding]:
    """Whether there is room where files will be written: a full disk refuses charges and checkpoints."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    said = f"{free / 2**30:.1f} GiB free in {folder}"
    if free < LEAST_DISK_BYTES:
        return [failed("disk", said, "free space: without it no round is charged and no checkpoint written")]
    if free < LITTLE_DISK_BYTES:
        return [warning("disk", said, "free space soon")]
    return [ok("disk", said)]


def check_gpu() -> list[Finding]:
    """Which accelerator torch sees; none is needed."""
    import torch

    if torch.cuda.is_available():
        return [ok("gpu", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")]
    if Path("/dev/nvidia0").exists():
        mend = "install a torch that is built for CUDA, and a driver that it takes"
        return [warning("gpu", "there is one, and torch does not see it", mend)]
    return [ok("gpu", "none; the CPU does")]


def check_keys(folder: Path, *, now: datetime) -> list[Finding]:
    """Whether the keys and certificates in a folder are whole, fit together, and last.

    Raises:
        ConfigError: no key lies there.
    """
    seen = look_at(folder, now=now)
    mend = f"fedrec keys show {folder}"
    findings = [failed("keys", *_halves(problem, mend)) for problem in seen.problems]
    findings += [warning("keys", *_halves(text, mend)) for text in seen.warnings]
    return findings or [ok("keys", f"{len(seen.files)} files of a {seen.kind}, whole and their owner's alone")]


def is_free(host: str, port: int) -> bool:
    """Whether a server can listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family):
            return True
    except OSError:
        return False


def _halves(text: str, otherwise: str) -> tuple[str, str]:
    """What is wrong, and how to mend it."""
    said, _, mend = text.partition("; ")
    return said, mend or otherwise


def _out_of_bounds(line: str) -> Finding | None:
    """What is wrong with one requirement, such as ``flwr>=1.41,<1.42``."""
    found = _REQUIREMENT.fullmatch(line.strip())
    if found is None:
        return None
    name, bounds = found["name"], found["bounds"].replace(" ", "")
    mend = f"pip install '{name}{bounds}'"
    if _is_missing(name):
        return failed("packages", f"{name} is not installed", mend)
    version = metadata.version(name)
    if all(_holds(version, bound) for bound in bounds.split(",") if bound):
        return None
    return failed("packages", f"{name} {version}: expected {bounds}", mend)


def _is_missing(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return True
    return False


def _holds(version: str, bound: str) -> bool:
    """Whether a version keeps one bound; releases alone, so that 2.9.0+cpu is 2.9.0."""
    operator = next(sign for sign in _COMPARE if bound.startswith(sign))
    one, other = _numbers(version), _numbers(bound.removeprefix(operator))
    width = max(len(one), len(other))
    return _COMPARE[operator](one + (0,) * (width - len(one)), other + (0,) * (width - len(other)))


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(map(int, release[0].split("."))) if release else ()
