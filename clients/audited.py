"""Clients as an auditor sees them: the merchant's own code from charge to reply, on made-up people."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from clients.merchant import Merchant
from clients.opening import check_person_gradients, local_training
from clients.replies import ReplyCache
from clients.training import RankerLearner, step_losses
from fedrec.agreement import Agreement
from fedrec.code import code_digest
from fedrec.data.histories import Histories
from fedrec.model.adapters import adapter_arrays, load_adapter_arrays, schema_of, trainable_parameters
from fedrec.model.ranker import Ranker
from fedrec.model.statistics import Counting
from fedrec.privacy.audit.tap import Tap, tapped
from fedrec.privacy.ledger import Ledger, LedgerFiles
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import METRICS, Policy
from fedrec.schema import AdapterSchema, Arrays
from fedrec.wire import Instruction

_NUDGE = 0.02  # spread of the start's change: a fresh adapter has zero gradients that would hide errors


class AuditedClient:
    """One merchant; see ``fedrec.privacy.audit.engine.Client``."""

    def __init__(self, merchant: Merchant, *, agreement: Agreement, start: Arrays, ledger: Ledger) -> None:
        self._merchant, self._agreement, self._start, self._ledger = merchant, agreement, start, ledger

    def answer(self, round_index: int) -> Arrays:
        """What the merchant would send in a round."""
        agreed = self._agreement
        asked = Instruction(
            agreed.run_id, round_index, agreed.base_digest, self._merchant.agreement_digest, adapter=self._start
        )
        return self._merchant.train_round(asked).arrays

    def counts(self) -> Arrays:
        """What the merchant would send when it is asked to count."""
        agreed = self._agreement
        asked = Instruction(agreed.run_id, 1, agreed.base_digest, self._merchant.agreement_digest, adapter=self._start)
        return self._merchant.count_statistics(asked).arrays

    def charged_steps(self) -> int:
        """Steps that the ledger has booked."""
        return sum(spending.steps for spending in self._ledger.spendings())


class AuditedClients:
    """The clients of one agreement; see ``fedrec.privacy.audit.engine.Engine``. From ``audited_clients``."""

    def __init__(self, agreement: Agreement, ranker: Ranker, folder: Path, *, counting: Counting | None = None) -> None:
        self._agreement, self._ranker, self._folder, self._counting = agreement, ranker, folder, counting
        self._clients = 0
        rng = np.random.default_rng(0)  # public: where the adapter starts
        self._start = {
            name: values + _NUDGE * rng.standard_normal(values.shape).astype(np.float32)
            for name, values in adapter_arrays(ranker).items()
        }

    @property
    def plan(self) -> PrivacyPlan:
        return self._agreement.plan

    @property
    def schema(self) -> AdapterSchema:
        return schema_of(self._ranker)

    @property
    def items(self) -> int:
        return self._ranker.items

    @property
    def counting(self) -> Counting | None:
        return self._counting

    def client(self, people: Histories, tap: Tap, *, plan: PrivacyPlan | None = None) -> AuditedClient:
        """A merchant with a new ledger, under the agreement's plan or another."""
        agreement = replace(self._agreement, plan=tapped(plan or self.plan, tap))
        policy = _policy_of(agreement)
        folder = self._folder / f"client-{self._clients:05d}"
        folder.mkdir()
        self._clients += 1
        ledger = Ledger.create(
            LedgerFiles.beside(folder / "ledger.sqlite"), dataset="made-up people", policy=policy, durable=False
        )
        merchant = Merchant(
            agreement,
            learner=RankerLearner(self._ranker, people, local_training(agreement)),
            policy=policy,
            ledger=ledger,
            replies=ReplyCache(folder / "reply.safetensors"),
            counting=self._counting,
            partition=0,  # the same for all: two clients that agree in everything must still differ in their noise
        )
        return AuditedClient(merchant, agreement=agreement, start=self._start, ledger=ledger)

    def gradient_alone(self, people: Histories, person: int) -> np.ndarray:
        """Plain autograd of the person's loss in step 0, no hooks and nobody else; (P,)."""
        ranker, training = self._ranker, local_training(self._agreement)
        load_adapter_arrays(ranker, self._start)
        ranker.train()
        loss = step_losses(ranker, people, np.array([person]), step=0, training=training).sum()
        parameters = list(trainable_parameters(ranker).values())
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        return np.asarray(torch.cat([g.flatten() for g in flat]).double().numpy())

    def check_gradients(self) -> None:
        """What a merchant checks when it opens."""
        load_adapter_arrays(self._ranker, self._start)
        check_person_gradients(self._ranker, local_training(self._agreement))

    def frozen_digest(self) -> str:
        """SHA-256 over frozen parameters and buffers."""
        digest = hashlib.sha256()
        frozen = [(name, p) for name, p in self._ranker.named_parameters() if not p.requires_grad]
        for name, values in (*frozen, *self._ranker.named_buffers()):
            digest.update(name.encode())
            digest.update(values.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


@contextmanager
def audited_clients(
    agreement: Agreement, ranker: Ranker, *, counting: Counting | None = None
) -> Iterator[AuditedClients]:
    """Clients of ``agreement`` whose ledgers and replies live in a folder that is deleted at the end.

    Args:
        agreement: with the plan under audit.
        ranker: with its adapter; its adapter is overwritten.
        counting: what is counted under the plan; None when nothing.
    """
    with TemporaryDirectory(prefix="fedrec-audit-") as folder:
        yield AuditedClients(agreement, ranker, Path(folder), counting=counting)


def _policy_of(agreement: Agreement) -> Policy | None:
    """The strictest policy under which the agreement runs; none without privacy, as for a merchant."""
    if not agreement.plan.private:
        return None
    return Policy.for_plan(
        agreement.plan,
        base=agreement.base_digest,
        code=code_digest(),
        server_key=agreement.server_key,
        metrics=METRICS if agreement.plan.metric_releases else (),
        trust=agreement.plan.trust,
        statistics=agreement.plan.statistics_noise_multiplier is not None,
    )
