"""Every setting of a run, with its default, bound, unit and meaning. The one home of defaults, with
``config_partition``, ``config_parts`` and, for what a shop sets alone, ``config_search``.

The tree is frozen and refuses unknown keys. It stops at the edge: ``simulations`` and ``cli``
unpack it into plain arguments, so nothing in the core knows that it exists.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from fedrec.config_partition import PartitionConfig
from fedrec.config_parts import PairsConfig, StatisticsConfig
from fedrec.config_section import Count, Fraction, Positive, Rate, Section, Window
from fedrec.errors import ConfigError

BUNDLED = "bundled"  # what the set that comes with fedrec is called, where a file of events could be named


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("expected each name once")
    return names


class DataConfig(Section):
    """What is read, and how a person's history is cut."""

    events: Path | None = Field(None, description="CSV or Parquet of events; the bundled Online Retail set when absent")
    catalogue: Path | None = Field(None, description="CSV or Parquet of items; required with events")
    event_columns: dict[str, str] = Field(
        default_factory=dict, description="our event field = the file's column, for names that differ"
    )
    catalogue_columns: dict[str, str] = Field(
        default_factory=dict, description="our item field = the file's column, for names that differ"
    )
    merge_repeats: bool = Field(True, description="drop an event that repeats the item just before it")
    min_events: Annotated[int, Field(ge=3)] = Field(4, description="people with fewer events are left out")
    max_history: Count = Field(200, description="events kept per person, the latest")
    mask_history: bool = Field(
        False, description="never offer what a person took before; only where nothing is taken twice"
    )
    split: Literal["leave-last-out", "next-basket"] = Field(
        "leave-last-out", description="how test targets are held out"
    )
    time_cut: str | None = Field(
        None, description="ISO date for next-basket: training ends here; the last tenth of the events when absent"
    )
    cold_items: Fraction = Field(
        0.0,
        description="share of the catalogue that nobody may learn from: targets of somebody, drawn by the seed",
    )


class ItemsConfig(Section):
    """How catalogue text becomes vectors."""

    encoder: str = Field(
        "auto",
        description="auto (shipped vectors for the bundled set, else hashing) | hashing | a Hugging Face path or name",
    )
    local_files_only: bool = Field(True, description="never download encoder weights")
    dimensions: Count = Field(256, description="width of the whitened vectors")
    damping: Annotated[float, Field(ge=0)] = Field(0.1, description="share of the mean variance added before whitening")


class ModelConfig(Section):
    """The ranker: a small causal decoder over item vectors, plus the named parts of the score."""

    backbone: Path | None = Field(
        None, description="folder of a pretrained Hugging Face causal decoder; small Llama if absent"
    )
    width: Count = Field(64, description="hidden size")
    layers: Count = Field(2, description="decoder blocks")
    heads: Count = Field(2, description="attention heads")
    feed_forward: Count = Field(128, description="SwiGLU hidden size")
    history: Window = Field(24, description="events of a history that the decoder reads, the latest")
    text_window: Window = Field(8, description="events that the text part averages")
    text_decay: Rate = Field(0.4, description="weight of an event relative to the next later one")
    text_scale: Positive = Field(10.0, description="initial alpha: logits per unit of cosine")
    full_softmax: Count = Field(4_000, description="largest catalogue whose every item enters the loss")
    negatives: Count = Field(1_024, description="uniform catalogue items that stand for a larger one")


class PretrainingConfig(Section):
    """Making the public base; no privacy is spent because the panel opted in."""

    base: Path | None = Field(None, description="folder that fedrec pretrain wrote; made from the panel when absent")
    epochs: Annotated[int, Field(ge=0)] = Field(18, description="passes over the panel")
    learning_rate: Positive = Field(3e-3, description="AdamW step size")
    batch_people: Count = Field(64, description="people in a batch")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1.0, description="AdamW weight decay")
    dropout: Fraction = Field(0.3, description="of item inputs and states, while pretraining only")
    judge_share: Fraction = Field(0.2, description="share of the panel kept from training, to choose the best round on")


class AdapterConfig(Section):
    """The only parameters that are trained on private data and cross the wire."""

    kind: Literal["lora", "ffa-lora", "bottleneck"] = Field("lora", description="lora | ffa-lora | bottleneck")
    rank: Count = Field(1, description="rank of LoRA, or width of the bottleneck")
    targets: Literal["head", "all-linear"] = Field("head", description="which linear layers carry LoRA")
    norms: bool = Field(True, description="also adapt the gains of the normalisation layers")
    gains: bool = Field(False, description="also adapt how much each direction of item space counts in a part")


class LocalConfig(Section):
    """What a merchant does for itself with its own people; costs no privacy because it never leaves."""

    memory_weight: Annotated[float, Field(ge=0)] = Field(
        1.5, description="gamma: logits of the merchant's own transitions"
    )
    memory_sharpness: Positive = Field(30.0, description="how soon a transition's probability counts")
    memory_window: Count = Field(3, description="events apart that still count as a transition")
    memory_recent: Count = Field(3, description="events of a history that are looked up")
    memory_decay: Rate = Field(0.4, description="weight of a looked-up event relative to the next later one")
    memory_shrinkage: Annotated[float, Field(ge=0)] = Field(0.2, description="pseudo-counts added to each row")
    repeat_weight: Annotated[float, Field(ge=0)] = Field(
        12.0, description="logits of a person's own earlier purchases, were all bought again; 160 for next-basket"
    )
    repeat_decay: Rate = Field(0.8, description="weight of a visit to the merchant relative to the next later one")
    basket_weight: Annotated[float, Field(ge=0)] = Field(
        8.0, description="logits taken from what the latest visit holds already; 0 for next-basket: a new one begins"
    )
    popular_weight: Annotated[float, Field(ge=0)] = Field(
        0.0, description="logits of what sells at the merchant; 10 for next-basket"
    )
    popular_half_life_days: Positive | None = Field(
        None, description="age at which a sale counts half; all alike when absent, 20 for next-basket"
    )
    popular_shrinkage: Annotated[float, Field(ge=0)] = Field(
        3_000.0, description="sales of the public panel that the merchant's own are mixed with"
    )
    tuning_steps: Annotated[int, Field(ge=0)] = Field(2, description="fine-tuning passes over the merchant's people")
    tuning_rate: Positive = Field(2e-2, description="Adam step size of fine-tuning")


# The same settings where a whole next basket is asked for (data.split) and not what comes next in this one.
_NEXT_BASKET = {
    "repeat_weight": 160.0,
    "repeat_decay": 0.9,
    "basket_weight": 0.0,
    "popular_weight": 10.0,
    "popular_half_life_days": 20.0,
}


class PrivacyConfig(Section):
    """The guarantee, per person at a merchant, add-or-remove-one neighbours. Public numbers all."""

    enabled: bool = Field(True, description="false stamps the run NOT PRIVATE")
    epsilon: Positive = Field(8.0, description="budget of one person at one client over the whole run")
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(1e-5, description="failure probability of the guarantee")
    clip_norm: Positive = Field(1.0, description="largest L2 norm of one person's gradient")
    clipping: Literal["flat", "auto-s"] = Field("auto-s", description="flat | auto-s")
    sampling_rate: Rate = Field(0.25, description="probability that a person takes part in a step")
    expected_people: Count | None = Field(
        None, description="public constant n of the normaliser q*n; the partition's nominal client size when absent"
    )
    batch_cap: Count | None = Field(
        None, description="people in a step, at most, for bounded memory; goes with max_people; no cap when absent"
    )
    max_people: Count | None = Field(
        None, description="public bound on the people at any client; a larger client refuses; goes with batch_cap"
    )
    metrics: Annotated[tuple[Literal["ndcg@10", "hr@10"], ...], AfterValidator(_different)] = Field(
        (), description="ndcg@10, hr@10: noised metrics that clients release besides their updates; none when empty"
    )
    metrics_every: Count = Field(10, description="rounds from one release of metrics to the next")
    metric_noise_multiplier: Positive = Field(
        5.0, description="noise of each release of metrics, in units of what one person can move it"
    )
    trust: Literal["local", "distributed", "central"] = Field(
        "local",
        description="who adds the noise: local: each client all of it; distributed: clients share it, central: the "
        "server, both in simulations only",
    )

    @model_validator(mode="after")
    def _caps_go_together(self) -> Self:
        if (self.batch_cap is None) != (self.max_people is None):
            raise ValueError("batch_cap and max_people: expected both or neither")
        return self


class FederationConfig(Section):
    """Rounds and the server's optimizer."""

    rounds: Count = Field(30, description="rounds of the federation")
    clients_per_round: Count | None = Field(None, description="replies that complete a round; all clients when absent")
    over_selection: Annotated[float, Field(ge=1, le=3)] = Field(
        1.0, description="how many times clients_per_round are asked, and charged, so that some may be late"
    )
    deadline_s: Positive | None = Field(
        None,
        description="seconds to wait for replies in a round; when absent 600 between machines, else until all are in",
    )
    aggregation: Literal["mean", "trimmed-mean"] = Field(
        "mean", description="mean | trimmed-mean: without the largest and smallest share of each number"
    )
    trim: Annotated[float, Field(ge=0.1, lt=0.5)] = Field(
        0.1, description="share of the replies that a trimmed mean cuts at each end, rounded up"
    )
    weights: Literal["uniform", "registered"] = Field(
        "uniform", description="uniform | registered: by the public weights that clients were enrolled with"
    )
    local_steps: Count = Field(1, description="private steps a client takes in a round")
    local_learning_rate: Positive = Field(1.0, description="step size between the local steps of one round")
    server_learning_rate: Positive = Field(1.5e-2, description="Adam step size on the mean update")
    warmup_rounds: Annotated[int, Field(ge=0)] = Field(3, description="rounds over which the step size grows")
    ema: Fraction = Field(0.9, description="decay of the averaged adapter that is published")
    min_replies: Rate | None = Field(
        None,
        description="share of clients_per_round that must count, or the round is void; when absent .5, and 1 when the "
        "noise is shared",
    )
    engine: Literal["local", "ray"] = Field(
        "local", description="local: this process and workers of its own; ray: Flower's simulation runtime"
    )
    workers: Annotated[int, Field(ge=0)] = Field(
        0,
        description="processes that train clients, one core each; 1: for engine local, this process alone; 0: as many "
        "as there are cores, and at most one for every 250 local steps of the run, for each takes seconds to "
        "start; of a Ray cluster, which brings its own, the fewest CPUs it may have",
    )


class Config(Section):
    """All of it, as written to ``config.toml`` of a run."""

    data: DataConfig = DataConfig()
    partition: PartitionConfig = PartitionConfig()
    items: ItemsConfig = ItemsConfig()
    model: ModelConfig = ModelConfig()
    pretraining: PretrainingConfig = PretrainingConfig()
    pairs: PairsConfig = PairsConfig()
    statistics: StatisticsConfig = StatisticsConfig()
    adapter: AdapterConfig = AdapterConfig()
    local: LocalConfig = LocalConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    federation: FederationConfig = FederationConfig()
    compare: bool = Field(False, description="also train without privacy and on pooled data, as references")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="partition, base and who is asked; never noise")

    @model_validator(mode="before")
    @classmethod
    def _split_has_its_own_defaults(cls, values: dict) -> dict:
        """A merchant remembers for the question that is asked; a setting that is given wins."""
        data, local = values.get("data"), values.get("local", {})
        if isinstance(data, dict) and isinstance(local, dict) and data.get("split") == "next-basket":
            return values | {"local": _NEXT_BASKET | local}
        return values

    @property
    def clients_per_round(self) -> int:
        """Replies that complete a round."""
        return self.federation.clients_per_round or self.partition.clients

    @property
    def min_replies(self) -> float:
        """Share of ``clients_per_round`` that must count: where nothing is set, all of those that share the noise."""
        if self.federation.min_replies is not None:
            return self.federation.min_replies
        return 1.0 if self.privacy.trust == "distributed" else 0.5


def parse_config(values: dict, *, source: str) -> Config:
    """Check ``values`` against the tree.

    Raises:
        ConfigError: the first offending setting, named by its dotted path.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{source}: {where}={first.get('input')!r}: {first['msg']}") from None


def load_config(path: Path) -> Config:
    """Read a TOML file into a ``Config``.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key or a value out of range.
    """
    return parse_config(read_toml(path), source=str(path))


def read_toml(path: Path) -> dict:
    """Read a TOML file; raises ``ConfigError`` naming it when that fails."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from None
