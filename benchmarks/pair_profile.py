"""What public people's rows of pair counts look like: the figures in ``fedrec/privacy/profiles.py``.

fedrec simulate --prepare-only --out runs/profile
python benchmarks/pair_profile.py runs/profile/base
"""

import sys
from pathlib import Path

from fedrec.config import Config
from fedrec.data.histories import Histories
from fedrec.model.base import PANEL
from fedrec.model.pair_profile import pair_buckets
from fedrec.model.pairs import PublicPairs


def main() -> None:
    """Print one line of Python a bucket."""
    base = Path(sys.argv[1])
    judge = Histories.load(base / PANEL)
    for bucket in pair_buckets(PublicPairs.load(base), judge, window=Config().pairs.window):
        print(f"PairBucket({bucket.pairs:_}, {bucket.mean:.2e}, {bucket.rms:.2e}),")


if __name__ == "__main__":
    main()
