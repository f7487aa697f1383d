"""One contender in a process of its own: ``python -m benchmarks.peers.contender NAME REGIME --runs N``.

Lines of JSON on stdout, as ``pace`` says; the last one holds the checksum.
"""

import argparse
import importlib
import logging

import torch

from benchmarks.peers.pace import DONE, paced_by_pipe, say
from benchmarks.peers.work import REGIMES

# Name: the module whose ``run`` it is, with which arguments.
CONTENDERS: dict[str, tuple[str, dict]] = {
    "loop": ("bare_loop", {"workers": 1}),
    "fedrec-1": ("fedrec_engines", {"workers": 1}),
    "fedrec-2": ("fedrec_engines", {"workers": 2}),
    "fedrec-noise": ("fedrec_engines", {"workers": 1, "private": True}),
    "fedrec-ray": ("fedrec_engines", {"workers": 2, "engine": "ray"}),
    "flower": ("flower_opacus", {"workers": 2}),
    "pfl": ("pfl_simulation", {"workers": 1}),
}


def main() -> None:
    """Run one contender at the pace of whoever started it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(CONTENDERS))
    parser.add_argument("regime", choices=sorted(REGIMES))
    parser.add_argument("--runs", type=int, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    module, arguments = CONTENDERS[asked.name]
    regime = REGIMES[asked.regime]
    pace = paced_by_pipe(runs=asked.runs, rounds=regime.rounds)
    found = importlib.import_module(f"benchmarks.peers.{module}").run(regime, pace, **arguments)
    say({"event": DONE} | found)


if __name__ == "__main__":
    main()
