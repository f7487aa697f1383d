"""A second opinion on epsilon: the Renyi accountant of Opacus, written by other people than the first.

Importing Opacus brings torch, which takes seconds and which these formulas do not use; so its one file of formulas
is loaded by itself, when asked.
"""

import importlib.util
import math
import warnings
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from fedrec.errors import PrivacyError
from fedrec.privacy.steps import Steps, check_delta, merged

CROSSCHECK = f"opacus {version('opacus')} RDP"

_ORDERS = (*(1 + tenth / 10 for tenth in range(1, 100)), *range(11, 65), 80, 96, 128, 192, 256, 384, 512, 1024)


def opacus_rdp_epsilon(spendings: tuple[Steps, ...], delta: float) -> float:
    """Epsilon of the same steps by Opacus' Renyi accountant; neighbours add or remove one person.

    Args:
        delta: in (0, 1).

    Returns:
        >= 0; 0 for no steps, infinity without noise. An upper bound like ``composed_epsilon`` and looser.

    Raises:
        PrivacyError: an argument out of range, or a capped batch, which Opacus cannot account for.
    """
    check_delta(delta)
    total = merged(spendings)
    if any(spending.batch_cap is not None for spending in total):
        raise PrivacyError("batch_cap: Opacus accounts for no capped batches; use composed_rdp_epsilon")
    if not total:
        return 0.0
    if any(spending.noise_multiplier == 0 for spending in total):
        return math.inf
    opacus = _opacus_formulas()
    costs = sum(
        opacus.compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=list(_ORDERS))
        for noise, rate, steps, _, _ in total
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")  # looser, never too low
        epsilon, _ = opacus.get_privacy_spent(orders=list(_ORDERS), rdp=costs, delta=delta)
    return max(float(epsilon), 0.0)


@lru_cache(maxsize=1)
def _opacus_formulas() -> ModuleType:
    """``opacus.accountants.analysis.rdp`` without the package around it."""
    package = importlib.util.find_spec("opacus")  # finds, does not import
    if package is None or not package.submodule_search_locations:
        raise ImportError("opacus: not installed; reinstall fedrec")
    path = Path(package.submodule_search_locations[0]) / "accountants" / "analysis" / "rdp.py"
    spec = importlib.util.spec_from_file_location("opacus_accountants_analysis_rdp", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: not found; install an opacus within the bounds of fedrec")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
