"""The model of a run as it is served: read whole, checked whole, and changed by nothing afterwards."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load

from fedrec.agreement import Agreement, agreed_ranker, read_agreement
from fedrec.config import Config, DataConfig
from fedrec.data import load_catalogue
from fedrec.data.catalogue import Catalogue, read_catalogue
from fedrec.errors import ConfigError, DataError, RunError, WireError
from fedrec.evaluation.masking import Masking, masking_of_targets
from fedrec.invitation import CATALOGUE as INVITED
from fedrec.invitation import INVITATION
from fedrec.model.adapters import load_adapter_arrays
from fedrec.model.base import CATALOGUE
from fedrec.model.pairs import PairPart, PublicPairs
from fedrec.model.ranker import Ranker
from fedrec.run_config import load_run_config
from fedrec.runfolder import ADAPTER, STATISTICS
from fedrec.schema import Arrays

PAIRS, COUNTED = "pairs", "counted"
_RESUME = "publish it again with the command of the run and --resume"


@dataclass(frozen=True, eq=False)
class ServedModel:
    """What a run published, ready to score. Public; it holds nobody's history.

    Attributes:
        ranker: the base with the published adapter; frozen, in evaluation mode.
        parts: what pairs add to the score, by name: ``pairs`` of the base, and ``counted`` by its clients, if any.
        catalogue: I items, in the order of the item table.
        statement: the privacy guarantee of the run in words, or that there is none.
        masking: what a person's past takes out of a list, as in the run's own figures.
        merges_repeats: an event that repeats the item just before it does not count, as in training.
        max_history: events of a past that count, the latest, as in training.
        version: 12 hex digits of base, adapter and counts; another one when any of them is.
    """

    ranker: Ranker
    parts: Mapping[str, PairPart]
    catalogue: Catalogue
    statement: str
    masking: Masking
    merges_repeats: bool
    max_history: int
    version: str

    @cached_property
    def vectors(self) -> np.ndarray:
        """The item table, (I, K) float32, unit rows."""
        return self.ranker.vectors.numpy()

    @cached_property
    def bias(self) -> np.ndarray:
        """What is the same for everybody, (I,) float32 logits."""
        return self.ranker.bias.detach().numpy()


def load_model(run: Path, *, catalogue: Path | None = None) -> ServedModel:
    """Read what a run published, and check that all of it belongs together. Writes nothing and keeps nothing.

    Args:
        run: folder of ``fedrec simulate`` or ``fedrec federation new``.
        catalogue: file of the run's items, where it is not any more what ``config.toml`` names.

    Raises:
        RunError: something is missing, unfinished, damaged, not finite, or of another run, base or catalogue.
        PrivacyError: the noise of the agreed plan does not give its epsilon.
    """
    agreement = read_agreement(run)
    adapter = _published(run / ADAPTER, agreement)
    counts = _published(run / STATISTICS, agreement) if (run / STATISTICS).exists() else None
    if counts and counts.about != adapter.about:
        raise RunError(f"{run / STATISTICS}: of another round than {ADAPTER}; {_RESUME}")
    with torch.random.fork_rng(devices=[]):  # building modules draws weights, which are then replaced
        ranker = agreed_ranker(agreement, run)
    _adapt(ranker, adapter.arrays, run)
    parts = {PAIRS: PublicPairs.load(run / "base").part()}
    if counts:
        parts[COUNTED] = _counted(counts.arrays, run / STATISTICS, items=ranker.items)
    config = _config(run, agreement)
    digests = (agreement.base_digest, adapter.digest, counts.digest if counts else "")
    return ServedModel(
        ranker=ranker,
        parts=parts,
        catalogue=_catalogue(run, config, named=catalogue),
        statement=agreement.plan.statement(),
        masking=masking_of_targets(config.data),
        merges_repeats=agreement.mask_last,
        max_history=config.data.max_history,
        version=hashlib.sha256(" ".join(digests).encode()).hexdigest()[:12],
    )


class _Published(NamedTuple):
    """A file that the run's server wrote at its end: arrays, what it says of itself, SHA-256."""

    arrays: Arrays
    about: dict[str, str]
    digest: str


def _published(path: Path, agreement: Agreement) -> _Published:
    """Read a published file, when it is of this run and base and every number in it is finite."""
    try:
        data = path.read_bytes()
        arrays = load(data)
        about = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    except FileNotFoundError:
        raise RunError(f"{path}: not there; a run publishes it at its end, so finish the run with --resume") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}; expected a run that you may read") from None
    except (SafetensorError, ValueError, KeyError) as error:
        raise RunError(f"{path}: damaged: {str(error).splitlines()[0]}; {_RESUME}") from None
    for name, expected in (("run_id", agreement.run_id), ("base", agreement.base_digest)):
        if about.get(name) != expected:
            raise RunError(
                f"{path}: {name} is {str(about.get(name))[:12]}, expected {expected[:12]}; put the run's own file back"
            )
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise RunError(f"{path}: {name} holds a value that is not finite; {_RESUME}")
    return _Published(arrays, about, hashlib.sha256(data).hexdigest())


def _adapt(ranker: Ranker, adapter: Arrays, run: Path) -> None:
    """Put the adapter in and freeze everything."""
    try:
        load_adapter_arrays(ranker, adapter)
    except WireError as error:
        raise RunError(f"{run / ADAPTER}: not the adapter that the run agreed on: {error}; {_RESUME}") from None
    ranker.requires_grad_(False)
    ranker.eval()
    for name, values in (*ranker.named_parameters(), ("item vectors", ranker.vectors)):
        if not torch.isfinite(values).all():
            raise RunError(f"{run / 'base'}: {name} holds a value that is not finite; make a run with another base")


def _counted(arrays: Arrays, path: Path, *, items: int) -> PairPart:
    try:
        pairs = PublicPairs.of_arrays(arrays)
    except ValueError as error:
        raise RunError(f"{path}: not a list of pairs: {error}; {_RESUME}") from None
    if pairs.items != items:
        raise RunError(f"{path}: for {pairs.items} items, the base has {items}; {_RESUME}")
    return pairs.part()


def _config(run: Path, agreement: Agreement) -> Config:
    path = run / "config.toml"
    try:
        config = load_run_config(path)
    except ConfigError as error:
        raise RunError(f"{error}; put the run's own config.toml back") from None
    if config.data.merge_repeats != agreement.mask_last:
        raise RunError(f"{path}: data.merge_repeats is not what the run agreed on; put the run's own config.toml back")
    return config


def catalogue_of(run: Path, data: DataConfig, *, named: Path | None = None) -> Catalogue:
    """The items of a run: of a named file, of its federation's invitation, or as its settings say.

    Raises:
        ConfigError: columns are mapped for the bundled set.
        DataError: the file cannot be used as it is.
    """
    invited = run / INVITATION / INVITED
    if named is None and invited.exists():
        return read_catalogue(invited, columns={})
    return load_catalogue(data if named is None else data.model_copy(update={"catalogue": named}))


def _catalogue(run: Path, config: Config, *, named: Path | None) -> Catalogue:
    """The items that the base was made for."""
    digest = run / "base" / CATALOGUE
    try:
        catalogue = catalogue_of(run, config.data, named=named)
    except (ConfigError, DataError) as error:
        raise RunError(f"{error}; give the run's items with --catalogue FILE") from None
    try:
        expected = digest.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise RunError(f"{digest}: cannot be read; put the run's own base back") from None
    if catalogue.text_only().digest() != expected:
        raise RunError(
            f"{named or config.data.catalogue or 'the catalogue'}: other items, texts or another order than "
            f"{run / 'base'} was made for; give the run's items with --catalogue FILE"
        )
    return catalogue
