"""Making the public base, as configured: encode the catalogue, build the ranker, fit it and pairs to public people."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from fedrec.config import Config
from fedrec.data.catalogue import Catalogue
from fedrec.data.histories import Histories
from fedrec.errors import ConfigError, RunError
from fedrec.evaluation.masking import masking_of
from fedrec.evaluation.weighing import apply_part_weights, fit_part_weights
from fedrec.model.base import CATALOGUE, PANEL, load_base, new_ranker, save_base
from fedrec.model.decoder import load_backbone, small_llama
from fedrec.model.items import Whitening, catalogue_vectors
from fedrec.model.pairs import PairSpec, PublicPairs, public_pairs, with_weight
from fedrec.model.pretraining import pretrain
from fedrec.model.ranker import Ranker, RankerSpec
from fedrec.model.transitions import gap_weights_of
from fedrec.report.progress import Progress


def make_base(
    config: Config, catalogue: Catalogue, folder: Path, *, fit: Histories, judge: Histories, progress: Progress
) -> None:
    """Write a base into ``folder``.

    Args:
        catalogue: the public items.
        fit: public people that it is trained on; none of them leaves the frozen-text ranker.
        judge: public people kept aside, on whom a federation's rounds will be measured.
    """
    with progress.stage("encoding items", total=len(catalogue)) as stage:
        vectors = item_table(config, catalogue, on_item=stage.move_to)
        stage.move_to(len(catalogue))
    ranker = build_ranker(config, vectors)
    epochs = config.pretraining.epochs if len(fit) else 0
    with progress.stage("pretraining the public base", total=epochs) as stage:
        pretrain(
            ranker,
            fit,
            epochs=epochs,
            learning_rate=config.pretraining.learning_rate,
            weight_decay=config.pretraining.weight_decay,
            batch_people=config.pretraining.batch_people,
            mask_last=config.data.merge_repeats,
            negatives=negatives_for(config, items=len(catalogue)),
            seed=config.seed,
            on_epoch=lambda epoch, loss: stage.move_to(epoch, text=f"loss {loss:.3f}"),
        )
    with progress.stage("weighing the parts of the score", total=1) as stage:
        pairs = weighed_pairs(config, ranker, fit=fit, judge=judge)
        stage.advance(text=f"{len(pairs)} pairs, weight {pairs.spec.weight:g}")
    _write(ranker, pairs, folder, catalogue=catalogue, judge=judge)


def adopt_base(source: Path, folder: Path, *, catalogue: Catalogue, judge: Histories) -> None:
    """Copy a base that ``fedrec pretrain`` made.

    Raises:
        RunError: not a base, or of another catalogue: other items, another order or other texts.
    """
    ranker, items = load_base(source), len(catalogue)
    if ranker.items != items:
        raise RunError(
            f"{source}: made for {ranker.items} items, the catalogue has {items}; pretrain with this catalogue"
        )
    noted = source / CATALOGUE
    if noted.exists() and noted.read_text(encoding="utf-8").strip() != catalogue.text_only().digest():
        raise RunError(f"{source}: made for {items} other items, texts or another order; pretrain with this catalogue")
    _write(ranker, PublicPairs.load(source), folder, catalogue=catalogue, judge=judge)


def weighed_pairs(config: Config, ranker: Ranker, *, fit: Histories, judge: Histories) -> PublicPairs:
    """Count the pairs of ``fit``, and weigh them and the ranker's parts by what predicts ``judge`` best.

    A ranker that learned from nobody is left as it is, the frozen-text baseline, and pairs get no weight unless one is
    configured.

    Args:
        ranker: as it was trained; its parts are weighed in place.
    """
    settings = config.pairs
    spec = PairSpec(
        weight=1.0,
        sharpness=settings.sharpness,
        recent=settings.recent,
        decay=settings.decay,
        shrinkage=settings.shrinkage,
    )
    list_pairs = partial(public_pairs, ranker, fit, gap_weights=gap_weights_of(settings.window), spec=spec)
    weight = settings.weight
    if config.pretraining.epochs and len(fit) and (judge.lengths > 1).any():
        seen = list_pairs(suggestions=0).part()
        weights = fit_part_weights(
            ranker, judge, seen, masking=masking_of(config.data), seed=config.seed, pairs_weight=weight
        )
        apply_part_weights(ranker, weights)
        weight = weights.pairs
    pairs = list_pairs(suggestions=settings.suggestions)  # by the ranker as it will be used
    return with_weight(pairs, weight or 0.0)


def item_table(config: Config, catalogue: Catalogue, *, on_item: Callable[[int], None]) -> np.ndarray:
    """Encode and whiten the catalogue: (I, K) float32, unit rows."""
    raw = catalogue_vectors(
        catalogue,
        config.items.encoder,
        local_files_only=config.items.local_files_only,
        cache_dir=Path.home() / ".cache" / "fedrec",
        progress=lambda done, _: on_item(done),
    )
    return Whitening.fit(raw, dimensions=config.items.dimensions, damping=config.items.damping).apply(raw)


def negatives_for(config: Config, *, items: int) -> int | None:
    """How many items stand for a catalogue of ``items`` in the loss; None for all of them."""
    return config.model.negatives if items > config.model.full_softmax else None


def build_ranker(config: Config, vectors: np.ndarray) -> Ranker:
    """Build the untrained ranker over item vectors (I, K), around a pretrained decoder when one is named.

    Raises:
        ConfigError: the decoder's settings do not fit, or the named one cannot be used.
    """
    model, backbone = config.model, None
    if model.backbone is None:
        decoder = small_llama(
            width=model.width,
            layers=model.layers,
            heads=model.heads,
            feed_forward=model.feed_forward,
            history=model.history,
        )
    else:
        decoder, backbone = load_backbone(model.backbone)
        longest = getattr(backbone.config, "max_position_embeddings", None) or model.history
        if model.history > longest:
            raise ConfigError(
                f"model.history={model.history}: expected at most {longest}, what model.backbone can read"
            )
    spec = RankerSpec(
        decoder=decoder,
        history=model.history,
        text_window=model.text_window,
        text_decay=model.text_decay,
        text_scale=model.text_scale,
        dropout=config.pretraining.dropout,
    )
    ranker = new_ranker(vectors, spec, seed=config.seed)
    if backbone is not None:
        ranker.decoder.load_state_dict(backbone.state_dict())
    return ranker


def _write(ranker: Ranker, pairs: PublicPairs, folder: Path, *, catalogue: Catalogue, judge: Histories) -> None:
    save_base(ranker, folder, pairs)
    (folder / CATALOGUE).write_text(catalogue.text_only().digest() + "\n", encoding="utf-8")
    if len(judge):
        judge.save(folder / PANEL)
