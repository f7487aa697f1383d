"""Keep third parties from phoning home, and their logs from drowning ours."""

import logging
import os
import sys

SETTINGS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",  # a second channel, which the first switch leaves on
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # only silences an advertisement of a later default
}


def silence() -> None:
    """Turn off telemetry, update checks and run-time installation, for this process and its children.

    Call it before ``flwr`` is imported; where that came first, the value it has read already is corrected too.
    """
    os.environ.update(SETTINGS)
    telemetry = sys.modules.get("flwr.supercore.telemetry")
    if telemetry is not None:
        vars(telemetry)["FLWR_TELEMETRY_ENABLED"] = SETTINGS["FLWR_TELEMETRY_ENABLED"]
    for name in ("flwr", "ray", "httpx"):  # httpx would name every request
        logging.getLogger(name).setLevel(logging.WARNING)
