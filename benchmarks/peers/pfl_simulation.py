"""Apple's pfl, in its own environment: its federated averaging, its simulated backend, its clipping where it has one.

With one person a device and one step a round, clipping a device's update is clipping the person's gradient, so pfl's
own training step and ``NormClippingOnly`` do all. With many people at a client pfl has no per-person clipping: the step
function that its model takes as an argument does it, with the same code as the bare loop.
"""

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByUser
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from pfl.privacy.privacy_mechanism import NormClippingOnly
from torch import Tensor

from benchmarks.peers.bare_loop import ORDER, place
from benchmarks.peers.pace import Pace
from benchmarks.peers.work import CLIP_NORM, LOCAL_RATE, PersonLoss, Regime, ServerSide, adapted_ranker, windows_of
from fedrec.model.adapters import trainable_parameters
from fedrec.privacy.clipping import clip_sum
from fedrec.privacy.gradients import PersonGradients


def run(regime: Regime, pace: Pace, *, workers: int) -> dict:
    """Run pfl's simulation in this process."""
    del workers
    net = Net(adapted_ranker(regime))
    server = ServerSide(net.ranker, rounds=pace.total)
    central = CentralStep(list(trainable_parameters(net.ranker).values()), server)
    model = PyTorchModel(net, _local_optimizer, central)
    users = list(range(regime.clients))
    data = [[getattr(windows, name) for name in ORDER] for windows in windows_of(regime)]
    sampler = get_user_sampler("minimize_reuse", users)
    people = FederatedDataset(lambda user: Dataset(raw_data=data[user], user_id=str(user)), sampler)
    is_device = regime.people == regime.local_steps == 1
    clipping = [NormClippingOnly(order=2.0, clipping_bound=CLIP_NORM)] if is_device else []
    backend = SimulatedBackend(people, people, postprocessors=[*clipping, WeightByUser()])
    with PersonGradients(net) if not is_device else torch.enable_grad() as gradients:
        algorithm = FederatedAveraging() if is_device else PerPerson(gradients)
        algorithm.run(
            algorithm_params=NNAlgorithmParams(
                central_num_iterations=pace.total,
                evaluation_frequency=10**9,
                train_cohort_size=regime.clients,
                val_cohort_size=0,
            ),
            backend=backend,
            model=model,
            model_train_params=NNTrainHyperParams(
                local_num_epochs=regime.local_steps, local_learning_rate=LOCAL_RATE, local_batch_size=None
            ),
            model_eval_params=NNEvalHyperParams(local_batch_size=None),
            callbacks=[_Paced(pace)],
            send_metrics_to_platform=False,
        )
    return {"checksum": server.checksum, "bytes": 0}


class Net(PersonLoss):
    """As pfl wants a model: a loss to minimise, and metrics."""

    def loss(self, *batch: Tensor) -> Tensor:
        return self(*batch).mean()

    @torch.no_grad()
    def metrics(self, *batch: Tensor) -> dict:
        losses = self(*batch)
        return {"loss": Weighted(losses.sum().item(), len(losses))}


class CentralStep(torch.optim.Optimizer):
    """The server's step that all contenders share; pfl hands it the mean update as a negative gradient."""

    def __init__(self, parameters: list[torch.nn.Parameter], server: ServerSide) -> None:
        super().__init__(parameters, {"lr": 1.0})
        self._parameters, self._server = parameters, server

    def step(self, closure: None = None) -> None:
        del closure
        self._server.step(-torch.cat([p.grad.reshape(-1) for p in self._parameters]).numpy())
        place(self._parameters, self._server.adapter)


class PerPerson(FederatedAveraging):
    """pfl's federated averaging with a step that clips each person's gradient."""

    def __init__(self, gradients: PersonGradients) -> None:
        super().__init__()
        self._gradients = gradients

    def train_one_user(self, initial_model_state, model, user_dataset, central_context):
        model.do_multiple_epochs_of(user_dataset, central_context.model_train_params, self._step)
        return model.get_model_difference(initial_model_state), Metrics()

    def _step(self, net: Net, optimizer: torch.optim.Optimizer, batch: list[Tensor], *_: object) -> None:
        rows = self._gradients.compute(lambda: net(*batch), people=len(batch[0]))
        mean = clip_sum(rows, CLIP_NORM, "flat").float() / len(rows)
        parameters = optimizer.param_groups[0]["params"]
        for p, part in zip(parameters, torch.split(mean, [p.numel() for p in parameters]), strict=True):
            p.grad = part.view_as(p)
        optimizer.step()


class _Paced(TrainingProcessCallback):
    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        del aggregate_metrics, model, central_iteration
        self._pace.after_round()
        return False, Metrics()


def _local_optimizer(parameters, lr: float) -> torch.optim.Optimizer:
    """Frozen weights must not be given to the optimizer."""
    return torch.optim.SGD([p for p in parameters if p.requires_grad], lr=lr)
