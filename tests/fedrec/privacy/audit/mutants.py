"""Ways to break the engine, each small enough to slip into a change, as patches of the code that clients run."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import clients.training
from fedrec.model.losses import person_losses
from fedrec.model.ranker import Ranker
from fedrec.privacy import clipping, gradients, mechanism, randomness
from fedrec.privacy.ledger import Charge, Ledger
from fedrec.privacy.mechanism import Mechanism
from fedrec.privacy.randomness import SecureRandom

Sabotage = Callable[[pytest.MonkeyPatch], None]


def noise_times(share: float) -> Sabotage:
    def apply(patch: pytest.MonkeyPatch) -> None:
        honest = SecureRandom.normal
        patch.setattr(SecureRandom, "normal", lambda self, size: share * honest(self, size))

    return apply


def no_clipping(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(mechanism, "clip_sum", lambda rows, clip_norm, kind: rows.double().sum(dim=0))


def shuffled(patch: pytest.MonkeyPatch) -> None:
    """Epochs of fixed batches, as an ordinary data loader makes them."""
    left: dict[int, list[int]] = {}

    def next_batch(people: int, rate: float, random: object, *, batch_cap: int | None = None) -> np.ndarray:
        size = max(1, round(people * rate))
        if len(left.get(people, [])) < size:
            left[people] = np.random.default_rng().permutation(people).tolist()
        batch, left[people] = left[people][:size], left[people][size:]
        return np.sort(np.array(batch, dtype=np.int64))

    patch.setattr(mechanism, "poisson_sample", next_batch)


def fixed_size(patch: pytest.MonkeyPatch) -> None:
    """Each batch of the expected size, drawn anew without replacement."""

    def draw(people: int, rate: float, random: object, *, batch_cap: int | None = None) -> np.ndarray:
        size = max(1, round(people * rate))
        return np.sort(np.random.default_rng().choice(people, size, replace=False)).astype(np.int64)

    patch.setattr(mechanism, "poisson_sample", draw)


def empty_batch_without_noise(patch: pytest.MonkeyPatch) -> None:
    honest = Mechanism.release

    def release(self: Mechanism, chunks: object, parameters: int) -> np.ndarray:
        if self._sampled == 0:
            self._sampled = None
            return np.zeros(parameters)
        return honest(self, chunks, parameters)

    patch.setattr(Mechanism, "release", release)


def empty_batch_drawn_again(patch: pytest.MonkeyPatch) -> None:
    honest = mechanism.poisson_sample

    def draw(people: int, rate: float, random: object, *, batch_cap: int | None = None) -> np.ndarray:
        while len(batch := honest(people, rate, random, batch_cap=batch_cap)) == 0:
            pass
        return batch

    patch.setattr(mechanism, "poisson_sample", draw)


def one_key_for_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(randomness.os, "urandom", lambda size: bytes(size))


def one_key_for_each_source(patch: pytest.MonkeyPatch) -> None:
    """A key made once for a client's round, so that its local steps repeat the noise."""
    honest = SecureRandom._integers

    def integers(self: SecureRandom, size: int) -> np.ndarray:
        if not hasattr(self, "_key"):
            self._key = randomness.os.urandom(32)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(randomness.os, "urandom", lambda size: self._key)
            return honest(self, size)

    patch.setattr(SecureRandom, "_integers", integers)


def normaliser_from_private_size(patch: pytest.MonkeyPatch) -> None:
    sample, release = Mechanism.sample, Mechanism.release
    people: dict[int, int] = {}

    def noted(self: Mechanism, size: int) -> np.ndarray:
        people[id(self)] = size
        return sample(self, size)

    def divided(self: Mechanism, chunks: object, parameters: int) -> np.ndarray:
        plan = self._plan
        return release(self, chunks, parameters) * plan.normaliser / (plan.sampling_rate * people[id(self)])

    patch.setattr(Mechanism, "sample", noted)
    patch.setattr(Mechanism, "release", divided)


def in_batch_negatives(patch: pytest.MonkeyPatch) -> None:
    def losses(ranker: Ranker, windows: object, *, mask_last: bool, negatives: Tensor | None = None) -> Tensor:
        return person_losses(ranker, windows, mask_last=mask_last, negatives=torch.unique(windows.targets))

    patch.setattr(clients.training, "person_losses", losses)


def nan_person_let_in(patch: pytest.MonkeyPatch) -> None:
    def clipped(rows: Tensor, bound: float, kind: str) -> tuple[Tensor, Tensor]:
        return bound / rows.double().norm(dim=1).clamp(min=bound), rows.double()

    patch.setattr(clipping, "_clipped", clipped)


def clipped_after_summing(patch: pytest.MonkeyPatch) -> None:
    """The batch is cut to the clip norm instead of each person."""
    honest = mechanism.clip_sum
    patch.setattr(mechanism, "clip_sum", lambda rows, norm, kind: honest(rows.sum(0, keepdim=True), norm, kind))


def two_people_in_one_row(patch: pytest.MonkeyPatch) -> None:
    """Each gradient also holds the next person's: an axis mixed up."""
    honest = gradients.PersonGradients.compute

    def compute(self: object, losses: object, *, people: int | None = None) -> Tensor:
        rows = honest(self, losses, people=people)
        return rows + 0.5 * rows.roll(1, dims=0)

    patch.setattr(gradients.PersonGradients, "compute", compute)


def steps_not_booked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "charge", lambda self, round_id, spending, *, plan, **how: Charge.CHARGED)
    patch.setattr(Ledger, "release", lambda self, round_id: "0" * 64)


def loss_hidden_in_the_reply(patch: pytest.MonkeyPatch) -> None:
    """A number that nobody noised rides along in the adapter."""
    honest = clients.training.unflatten

    def unflatten(vector: np.ndarray, schema: object) -> dict[str, np.ndarray]:
        arrays = honest(vector, schema)
        next(iter(arrays.values())).flat[0] += 1.0
        return arrays

    patch.setattr(clients.training, "unflatten", unflatten)


def base_that_learns(patch: pytest.MonkeyPatch) -> None:
    honest = clients.training.step_losses

    def losses(ranker: Ranker, *arguments: object, **how: object) -> Tensor:
        with torch.no_grad():
            ranker.bias.add_(1e-6)
        return honest(ranker, *arguments, **how)

    patch.setattr(clients.training, "step_losses", losses)


class TiedRanker(Ranker):
    """Item vectors that train, read as inputs through their module and as outputs by hand."""

    def __init__(self, ranker: Ranker) -> None:
        nn.Module.__init__(self)
        self.__dict__.update({name: value for name, value in vars(ranker).items() if not name.startswith("_")})
        for name, module in ranker.named_children():
            self.add_module(name, module)
        self.register_buffer("vectors", ranker.vectors, persistent=False)
        self.bias = ranker.bias
        self.embedding = nn.Embedding.from_pretrained(ranker.vectors.clone(), freeze=False)

    def states(self, items: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        inputs = self.item_input(self.embedding(items))
        hidden = self.decoder(inputs_embeds=inputs).last_hidden_state
        text = self.text(self.vectors[items])
        hidden, text = (
            torch.gather(rows, 1, positions[..., None].expand(-1, -1, rows.shape[-1])) for rows in (hidden, text)
        )
        return self.sequence_gain(self.head(hidden)), self.text_gain(text)

    def table(self, candidates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.embedding.weight, self.bias


def refusal_of_ties_removed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gradients, "_refuse_unsupported", lambda name, module: None)
    patch.setattr(gradients, "_refuse_shared_memory", lambda model: None)
