"""What a private step costs beside an ordinary one, and whether its gradients are exact: python -m benchmarks.step

Both steps read the same people's windows, run the same model and loss, and move the same adapter. The ordinary one
takes a backward pass of the summed loss. The private one opens the model, takes each person's gradient, clips, adds up
and adds noise. Steps alternate in one process on one thread; times are CPU time, so what else runs matters little.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor

from clients.training import LocalTraining, step_losses
from fedrec.config import Config
from fedrec.data.histories import Histories
from fedrec.model.adapters import AdapterSpec, attach_adapter, trainable_parameters
from fedrec.model.making import build_ranker
from fedrec.model.ranker import Ranker
from fedrec.privacy.clipping import clip_sum
from fedrec.privacy.gradients import PersonGradients
from fedrec.privacy.randomness import SecureRandom

ITEMS = 3_659  # of the bundled set
RANK = 8
LEARNING_RATE = 1e-6  # the model must stay where it is while steps are timed
ADAPTERS = ("default", "lora-q-v", "lora-all-linear")


@dataclass(frozen=True)
class StepRow:
    """One adapter's steps.

    Attributes:
        adapter: of ``ADAPTERS``.
        parameters: P.
        people: in a step.
        plain_ms: CPU time of an ordinary step, the median.
        private_ms: of a private step.
        ratio: median over the alternating pairs.
        difference: of a person's gradient from autograd on the person alone, L2, relative; the largest.
    """

    adapter: str
    parameters: int
    people: int
    plain_ms: float
    private_ms: float
    ratio: float
    difference: float


def measure_steps(
    *, people: int = 64, runs: int = 9, items: int = ITEMS, config: Config | None = None
) -> list[StepRow]:
    """Time both steps of every adapter, alternating, and compare gradients with a loop over people.

    Args:
        people: in a step, each with 2 to 60 events.
        runs: pairs of steps that are timed, >= 1; one more of each comes first and is not.
        items: of the catalogue; their vectors are random.
        config: of the model; the default one when None.
    """
    settings = config or Config()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_row(adapter, settings, people=people, runs=runs, items=items) for adapter in ADAPTERS]
    finally:
        torch.set_num_threads(threads)


def _row(adapter: str, config: Config, *, people: int, runs: int, items: int) -> StepRow:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(items, config.items.dimensions)).astype(np.float32)
    ranker = build_ranker(config, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    _attach(ranker, adapter, config)
    histories = Histories.from_lists(
        [(np.cumsum(rng.integers(1, items, n)) % items).tolist() for n in rng.integers(2, 61, people)]
    )
    training = LocalTraining(mask_last=True, negatives=None, seed=0)

    def losses(chosen: np.ndarray) -> Tensor:
        return step_losses(ranker, histories, chosen, step=0, training=training)

    everybody = np.arange(people)
    parameters = list(trainable_parameters(ranker).values())
    steps = (
        lambda: plain_step(parameters, lambda: losses(everybody)),
        lambda: private_step(ranker, parameters, lambda: losses(everybody), people=people),
    )
    times = np.array([[_cpu_ms(step) for step in steps] for _ in range(runs + 1)])[1:]
    plain, private = np.median(times, axis=0)
    difference = _largest_difference(ranker, parameters, losses, everybody)
    size = sum(p.numel() for p in parameters)
    ratio = statistics.median(times[:, 1] / times[:, 0])
    return StepRow(adapter, size, people, float(plain), float(private), float(ratio), difference)


def plain_step(parameters: list[torch.nn.Parameter], losses: Callable[[], Tensor]) -> None:
    """One ordinary step of gradient descent on the summed loss."""
    losses().sum().backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in parameters if p.grad is not None]
    with torch.no_grad():
        torch._foreach_add_(parameters, gradients, alpha=-LEARNING_RATE)
    for parameter in parameters:
        parameter.grad = None


def private_step(
    ranker: Ranker, parameters: list[torch.nn.Parameter], losses: Callable[[], Tensor], *, people: int
) -> None:
    """The same with each person's gradient clipped, and with noise."""
    with PersonGradients(ranker) as engine:
        total = clip_sum(engine.compute(losses, people=people), 1.0, "auto-s")
    total += torch.from_numpy(SecureRandom().normal(len(total)))
    released = total.float().split([p.numel() for p in parameters])
    with torch.no_grad():
        gradients = [part.view_as(p) for part, p in zip(released, parameters, strict=True)]
        torch._foreach_add_(parameters, gradients, alpha=-LEARNING_RATE)


def _attach(ranker: Ranker, adapter: str, config: Config) -> None:
    """Freeze the ranker, attach an adapter, and move it from its start, where half of its gradients are zero."""
    if adapter == "lora-q-v":
        ranker.freeze()
        inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["q_proj", "v_proj"]), ranker)
        ranker.train()
    elif adapter == "lora-all-linear":
        attach_adapter(ranker, AdapterSpec("lora", RANK, "all-linear", norms=False, gains=False), seed=0)
    else:
        attach_adapter(ranker, AdapterSpec(**config.adapter.model_dump()), seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        ranker.head.weight.add_(0.05 * torch.randn(ranker.head.weight.shape))  # zero would stop every gradient
        for parameter in trainable_parameters(ranker).values():
            parameter.add_(0.05 * torch.randn(parameter.shape))


def _largest_difference(
    ranker: Ranker,
    parameters: list[torch.nn.Parameter],
    losses: Callable[[np.ndarray], Tensor],
    everybody: np.ndarray,
) -> float:
    """Of the engine's rows from autograd on one person after the other, relative to the length of the row."""
    with PersonGradients(ranker) as engine:
        rows = engine.compute(lambda: losses(everybody), people=len(everybody))
    alone = [torch.autograd.grad(losses(everybody[i : i + 1]).sum(), parameters) for i in everybody]
    loop = torch.stack([torch.cat([g.flatten() for g in gradients]) for gradients in alone])
    return float(((rows - loop).norm(dim=1) / loop.norm(dim=1)).max())


def _cpu_ms(step: Callable[[], None]) -> float:
    start = time.process_time()
    step()
    return 1e3 * (time.process_time() - start)


def main() -> None:
    """Print the table, or the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=64)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure_steps(people=options.people, runs=options.runs)
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print("| adapter | numbers | people | plain, ms | private, ms | ratio | largest difference |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        times = f"{row.plain_ms:.1f} | {row.private_ms:.1f} | {row.ratio:.3f}"
        print(f"| {row.adapter} | {row.parameters:,} | {row.people} | {times} | {row.difference:.1e} |")


if __name__ == "__main__":
    main()
