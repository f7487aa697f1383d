"""What several privacy tests share: a small plan and a small adapted Transformer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from fedrec.model.parts import Gain
from fedrec.privacy.accounting import calibrated_noise_multiplier
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import Policy
from tests.fedrec.privacy.ledgers import generous, new_ledger

PUBLIC = {
    "sampling_rate": 0.25,
    "rounds": 30,
    "local_steps": 1,
    "clip_norm": 1.0,
    "clipping": "flat",
    "expected_people": 80,
}


@pytest.fixture
def make_plan() -> Callable[..., PrivacyPlan]:
    """A private plan at epsilon 8, with any number changed."""

    def make(epsilon: float = 8.0, delta: float = 1e-5, **changes: object) -> PrivacyPlan:
        return PrivacyPlan.calibrate(epsilon, delta, **{**PUBLIC, **changes})

    return make


@pytest.fixture
def plan(make_plan: Callable[..., PrivacyPlan]) -> PrivacyPlan:
    return make_plan()


@pytest.fixture
def policy(plan: PrivacyPlan) -> Policy:
    """Generous: nothing but the plan binds."""
    return generous(plan)


@pytest.fixture
def ledger(tmp_path: Path, plan: PrivacyPlan, policy: Policy) -> Ledger:
    """Three charges, so that the newest entry is number 4."""
    ledger = new_ledger(tmp_path, policy)
    for name in "abc":
        ledger.charge(f"run/{name}", plan.training(2), plan=plan)
    return ledger


@pytest.fixture
def coarse_accounting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The coarser grid alone: an upper bound too, ten times faster, and forgotten afterwards."""
    calibrated_noise_multiplier.cache_clear()
    monkeypatch.setattr("fedrec.privacy.accounting._FINE", 1e-3)
    yield
    calibrated_noise_multiplier.cache_clear()


@pytest.fixture
def make_open_plan() -> Callable[..., PrivacyPlan]:
    """A plan without privacy, with any number changed."""
    return lambda **changes: PrivacyPlan.without_privacy(**{**PUBLIC, **changes})


class UnknownScale(nn.Module):
    """One trainable factor of shape (), without a rule: its forward is differentiated a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class SmallRanker(nn.Module):
    """Item vectors in, next-item scores out, as the product's ranker does it, with 12 items of width 8."""

    def __init__(self) -> None:
        super().__init__()
        config = LlamaConfig(
            vocab_size=1, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=16,
        )  # fmt: skip
        self.register_buffer("items", torch.randn(12, 8))
        self.project = nn.Linear(8, 16)
        self.decoder = LlamaModel(config)
        self.head = nn.Linear(16, 8)
        self.bottleneck = nn.LayerNorm(8)
        self.gain = Gain(12, 1.5)
        self.unknown_scale = UnknownScale()

    def losses(self, histories: Tensor) -> Tensor:
        """Each person's mean next-item cross-entropy, (B,), from histories (B, L) of items."""
        inputs = self.project(self.items[histories[:, :-1]])  # (B, L-1, D)
        states = self.decoder(inputs_embeds=inputs, use_cache=False).last_hidden_state
        scores = self.unknown_scale(self.gain(self.bottleneck(self.head(states)) @ self.items.T))  # (B, L-1, I)
        flat = nn.functional.cross_entropy(scores.flatten(0, 1), histories[:, 1:].flatten(), reduction="none")
        return flat.view(len(histories), -1).mean(dim=1)


@pytest.fixture(params=["rules", "opacus"])
def small(request: pytest.FixtureRequest) -> SimpleNamespace:
    """``model`` with LoRA, norms and gains to train; ``losses_of(rows)`` over 6 ``histories``.

    Twice: where every trainable module has a rule, and with one that has none, for which Opacus takes over.
    """
    torch.manual_seed(0)
    without_rule = ["unknown_scale"] if request.param == "opacus" else []
    config = LoraConfig(
        r=2,
        lora_dropout=0.0,
        target_modules=["q_proj", "v_proj", "head"],
        modules_to_save=["norm", "input_layernorm", "gain", "bottleneck", *without_rule],
        init_lora_weights=False,
    )
    model = get_peft_model(SmallRanker(), config).train()
    histories = torch.randint(0, 12, (6, 9), generator=torch.Generator().manual_seed(1))
    losses = model.base_model.model.losses
    return SimpleNamespace(
        model=model, histories=histories, losses_of=lambda rows: losses(histories[rows]), engine=request.param
    )
