import math
import subprocess
import sys

import pytest
from opacus.accountants import RDPAccountant

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import Steps, composed_epsilon, composed_rdp_epsilon
from fedrec.privacy.crosscheck import CROSSCHECK, opacus_rdp_epsilon

DELTA = 1e-5
HISTORIES = [
    (Steps(1.13, 0.25, 30),),
    (Steps(3.3, 1.0, 30),),
    (Steps(0.5, 0.25, 30),),
    (Steps(30.0, 0.05, 3),),
    (Steps(2.0, 0.1, 50), Steps(1.5, 0.25, 10), Steps(20.0, 1.0, 5)),
]


@pytest.mark.parametrize("history", HISTORIES)
def test_the_cross_check_lies_above_epsilon_and_not_far(history):
    ours, theirs = composed_epsilon(history, DELTA), opacus_rdp_epsilon(history, DELTA)
    assert ours <= theirs <= 1.5 * ours + 0.1


@pytest.mark.parametrize(("noise", "rate", "steps", "published"), [(1.0, 0.01, 1000, 2.101), (1.0, 0.05, 100, 4.04)])
def test_the_cross_check_is_opacus_own_number(noise, rate, steps, published):
    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    found = opacus_rdp_epsilon((Steps(noise, rate, steps),), DELTA)
    assert found == pytest.approx(published, rel=2e-3)
    assert found == pytest.approx(accountant.get_epsilon(DELTA), rel=2e-3)


def test_half_the_noise_is_caught_by_the_cross_check():
    """A claim computed with twice the true noise falls below what Opacus says of the true one by a lot."""
    claimed = composed_epsilon((Steps(2.26, 0.25, 30),), DELTA)
    assert opacus_rdp_epsilon((Steps(1.13, 0.25, 30),), DELTA) > 2 * claimed


def test_nothing_costs_nothing_and_no_noise_costs_everything():
    assert opacus_rdp_epsilon((), DELTA) == 0.0
    assert opacus_rdp_epsilon((Steps(0.0, 0.1, 1), Steps(1.0, 0.1, 1)), DELTA) == math.inf


def test_a_capped_batch_and_a_bad_delta_are_refused():
    with pytest.raises(PrivacyError, match="batch_cap: Opacus accounts for no capped batches; use composed_rdp_eps"):
        opacus_rdp_epsilon((Steps(1.0, 0.25, 1, 10, 40),), DELTA)
    with pytest.raises(PrivacyError, match=r"delta=0\.0: expected a number in \(0, 1\)"):
        opacus_rdp_epsilon(HISTORIES[0], 0.0)


def test_the_cross_check_is_named_with_its_version():
    assert CROSSCHECK.startswith("opacus 1.")
    assert CROSSCHECK.endswith(" RDP")


def test_the_cross_check_needs_neither_torch_nor_the_opacus_package():
    code = (
        "import sys; from fedrec.privacy.crosscheck import opacus_rdp_epsilon;"
        "print(opacus_rdp_epsilon(((1.13, 0.25, 30, None, None),), 1e-5));"
        "sys.exit(sorted({'torch', 'opacus'} & set(sys.modules)) or 0)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    accountant = RDPAccountant()
    accountant.history = [(1.13, 0.25, 30)]
    assert float(shown) == pytest.approx(accountant.get_epsilon(1e-5), rel=2e-3)


def test_a_delta_below_the_discretised_tail_falls_back_on_the_renyi_bound():
    steps = (Steps(1.13, 0.25, 30),)
    assert composed_epsilon(steps, 1e-18) == pytest.approx(composed_rdp_epsilon(steps, 1e-18))
    assert composed_epsilon(steps, 1e-12) < composed_epsilon(steps, 1e-18) < math.inf
