"""What server and clients agreed on before the first round: the public half of a run folder.

``agreement.json`` beside ``base/`` names the adapter, the privacy plan and the few numbers of local
training. Both sides read it, compare its digests with what the other sends, and refuse a difference.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedrec.errors import RunError
from fedrec.model.adapters import AdapterSpec, attach_adapter
from fedrec.model.base import base_digest, load_base
from fedrec.model.ranker import Ranker
from fedrec.privacy.plan import PrivacyPlan
from fedrec.runfolder import write_json

FILE = "agreement.json"


@dataclass(frozen=True)
class Agreement:
    """Public constants of a federation.

    Attributes:
        run_id: names the run on the wire and in the ledgers.
        base_digest: SHA-256 of the frozen base.
        adapter: what learns.
        plan: what each client promises its people, and how.
        local_learning_rate: step size between the local steps of one round.
        mask_last: the item just bought is never the next one.
        negatives: uniform catalogue items that stand for a large catalogue in the loss; None for all items.
        seed: of the adapter's start, negatives and who is asked; never of noise or of who is sampled.
    """

    run_id: str
    base_digest: str
    adapter: AdapterSpec
    plan: PrivacyPlan
    local_learning_rate: float
    mask_last: bool
    negatives: int | None
    seed: int


def write_agreement(agreement: Agreement, folder: Path) -> None:
    """Write ``agreement.json`` into a run folder."""
    write_json(folder / FILE, asdict(agreement) | {"plan": agreement.plan.to_dict()})


def read_agreement(folder: Path) -> Agreement:
    """Read the agreement of a run and check that the base beside it is the one agreed on.

    Raises:
        RunError: missing, damaged, or the base is another one.
        PrivacyError: the plan's noise does not give its epsilon.
    """
    path = folder / FILE
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values["adapter"] = AdapterSpec(**values["adapter"])
        values["plan"] = PrivacyPlan.from_dict(values["plan"])
        agreement = Agreement(**values)
        digest = base_digest(folder / "base")
    except (OSError, UnicodeDecodeError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path}: not a usable agreement: {str(error).splitlines()[0]}") from None
    if digest != agreement.base_digest:
        raise RunError(f"{folder / 'base'}: differs from the base that {path} names; start again with another --out")
    return agreement


def agreed_ranker(agreement: Agreement, folder: Path) -> Ranker:
    """Build the base of a run folder with a fresh adapter, as the agreement says."""
    ranker = load_base(folder / "base")
    attach_adapter(ranker, agreement.adapter, seed=agreement.seed)
    return ranker
