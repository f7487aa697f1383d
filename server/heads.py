"""The newest end of each client's ledger that this server has seen, in one file that outlives every run.

A client that gets back an end which its ledger no longer holds has lost charges, and stops. Within one run the
checkpoints remember; between runs this file does. It is worth a backup: without it, a ledger that was set back
since the last run goes unnoticed.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fedrec.errors import RunError
from fedrec.locks import alone
from fedrec.runfolder import write_json

FORMAT = 1

_NODE = re.compile(r"[0-9]{1,20}")
_HEAD = re.compile(r"[0-9a-f]{64}")


def read_heads(path: Path) -> dict[int, str]:
    """Return the ends by Flower's number of the node; none when there is no file yet.

    Raises:
        RunError: it cannot be read or is not such a file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or not all(map(_is_head, content["heads"].items())):
            raise ValueError
        return {int(node): head for node, head in content["heads"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RunError(
            f"{path}: not the ends of ledgers that a server wrote; put a backup back, or move it away and accept that "
            "a ledger which was set back since goes unnoticed"
        ) from None


def add_heads(path: Path, newest: Mapping[int, str]) -> None:
    """Put newer ends beside those of other clients, durably; runs that share the file take turns.

    Raises:
        RunError: the file cannot be read or written.
    """
    if not newest:
        return
    with _alone(path):
        heads = {**read_heads(path), **newest}
        write_json(path, {"format": FORMAT, "heads": {str(node): heads[node] for node in sorted(heads)}})


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    try:
        with alone(path.with_suffix(".lock")):
            yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None


def _is_head(entry: tuple[str, object]) -> bool:
    node, head = entry
    return bool(_NODE.fullmatch(node)) and isinstance(head, str) and bool(_HEAD.fullmatch(head))
