"""The client app of a simulation that stays in one process: an opened merchant stays open for its next round."""

from functools import lru_cache
from pathlib import Path

from flwr.clientapp import ClientApp

from clients.app import build_app, place_of
from clients.merchant import Merchant, load_merchant

MERCHANTS = 1024  # that stay open: a few kB each beside their people's histories


def resident_app() -> ClientApp:
    """Make the client app of one run.

    A merchant reads its policy and opens its ledger once, as a deployed client does at its start. What it has verified
    of the ledger is not verified again; every charge still reads the newest lines and the witness anew.
    """

    @lru_cache(maxsize=MERCHANTS)
    def merchant(workspace: Path, partition: int) -> Merchant:
        return load_merchant(workspace, partition)

    return build_app(lambda context: merchant(*place_of(context)))
