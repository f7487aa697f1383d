"""Telling the owner of this machine why its client refuses; the server hears one of six words."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from fedrec.errors import FedrecError

log = logging.getLogger(__name__)


@contextmanager
def told() -> Iterator[None]:
    """Log the words of an error of ours and let it pass. Only around what looks at nobody's data: words may quote."""
    try:
        yield
    except FedrecError as error:
        log.warning("because %s", error)
        raise
