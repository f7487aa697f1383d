"""Flower, Ray and Opacus, written the way of Flower's own Opacus example, and better where that is free.

As there, each message makes an optimizer, a loader and ``PrivacyEngine.make_private``. Better than there: the model,
wrapped for per-person gradients, and the people's tensors stay in each Ray actor, and only the adapter crosses.
"""

import os
import secrets
import warnings
from functools import cache

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from opacus import GradSampleModule, PrivacyEngine
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers.bare_loop import ORDER
from benchmarks.peers.pace import Pace
from benchmarks.peers.work import CLIP_NORM, LOCAL_RATE, PersonLoss, Regime, ServerSide, adapted_ranker, windows_of
from fedrec.model.adapters import schema_of, trainable_parameters
from fedrec.quiet import silence
from fedrec.schema import flatten, unflatten


def run(regime: Regime, pace: Pace, *, workers: int) -> dict:
    """Run Flower's simulation on Ray actors of one CPU each."""
    silence()
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray listens on all interfaces
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    from flwr.simulation import run_simulation

    training = Training(regime, pace)
    resources = {"num_cpus": 1, "num_gpus": 0.0}
    settings = {"num_cpus": workers, "include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    backend = {"client_resources": resources, "init_args": settings}
    run_simulation(server_app(training), client_app(regime), regime.clients, backend_config=backend)
    return {"checksum": training.server.checksum, "bytes": training.bytes}


class Training(FedAvg):
    """Flower's averaging; then the server's step that all contenders share."""

    def __init__(self, regime: Regime, pace: Pace) -> None:
        everybody = regime.clients  # the share alone would be of the nodes that are there at the start, not of all
        super().__init__(fraction_evaluate=0.0, min_train_nodes=everybody, min_available_nodes=everybody)
        ranker = adapted_ranker(regime)
        self.schema, self.server = schema_of(ranker), ServerSide(ranker, rounds=pace.total)
        self.pace, self.bytes = pace, 0

    @property
    def arrays(self) -> ArrayRecord:
        """The adapter as it crosses."""
        arrays = unflatten(self.server.adapter, self.schema)
        return ArrayRecord({name: torch.from_numpy(values) for name, values in arrays.items()})

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        self.bytes = 2 * sum(len(array.data) for array in replies[0].content["arrays"].values())  # there and back
        mean, metrics = super().aggregate_train(server_round, replies)
        values = {name: array.numpy() for name, array in mean.items()}
        sent = np.asarray(flatten(unflatten(self.server.adapter, self.schema), self.schema), np.float64)  # as float32
        self.server.step(flatten(values, self.schema) - sent)
        arrays = self.arrays
        self.pace.after_round()
        return arrays, metrics


def server_app(training: Training) -> ServerApp:
    """A server that runs all rounds of the pace."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        training.start(grid=grid, initial_arrays=training.arrays, num_rounds=training.pace.total)

    return app


def client_app(regime: Regime) -> ClientApp:
    """A client that trains on its partition."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = message.content["arrays"].to_torch_state_dict()
        parameters, people = train_privately(regime, arrays, client=int(context.node_config["partition-id"]))
        content = {"arrays": ArrayRecord(parameters), "metrics": MetricRecord({"num-examples": people})}
        return Message(content=RecordDict(content), reply_to=message)

    return app


def train_privately(regime: Regime, arrays: dict, *, client: int) -> tuple[dict, int]:
    """Take the local steps with Opacus' engine; returns the adapter and how many people it learned from."""
    model, parameters = resident(regime)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(arrays[name])
    windows = windows_of(regime)[client]
    people = TensorDataset(*(getattr(windows, name) for name in ORDER))
    with warnings.catch_warnings():  # Opacus tells that its noise is not secure; there is none
        warnings.simplefilter("ignore")
        model, optimizer, loader = PrivacyEngine().make_private(
            module=model,
            optimizer=torch.optim.SGD(list(parameters.values()), lr=LOCAL_RATE),
            data_loader=DataLoader(people, batch_size=len(people)),
            noise_multiplier=0.0,
            max_grad_norm=CLIP_NORM,
        )
        for _ in range(regime.local_steps):
            for batch in loader:
                optimizer.zero_grad()
                model(*batch).mean().backward()
                optimizer.step()
    return {name: parameter.detach() for name, parameter in parameters.items()}, len(people)


@cache
def resident(regime: Regime) -> tuple[GradSampleModule, dict[str, torch.nn.Parameter]]:
    """The one model of this process, wrapped by Opacus, and the adapter's parameters by name."""
    ranker = adapted_ranker(regime)
    return GradSampleModule(PersonLoss(ranker)), trainable_parameters(ranker)
