"""A merchant (or a device): its people's histories, its ledger, and the round it is willing to train."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clients.opening import local_training, resident
from clients.replies import Answer, ReplyCache
from clients.telling import told
from clients.training import Learner, RankerLearner, private_direction
from fedrec.agreement import Agreement
from fedrec.code import code_digest
from fedrec.errors import PrivacyError
from fedrec.model.statistics import Counting
from fedrec.privacy.accounting import Steps
from fedrec.privacy.ledger import Charge, Kind, Ledger
from fedrec.privacy.measures import release_metrics
from fedrec.privacy.policy import Policy
from fedrec.privacy.randomness import RandomSource, SecureRandom, SeededRandom
from fedrec.privacy.statistics import release_statistics
from fedrec.schema import AdapterSchema, Arrays, parameters_of, unflatten
from fedrec.signing import SigningKey
from fedrec.wire import Instruction, Receipt, Refusal, RefusalCode
from fedrec.workspace import client_histories, ledger_of, policy_of, replies_path


class Merchant:
    """Everything of one client. What it knows of people leaves through three methods alone: ``train_round``,
    ``measure_round`` and ``count_statistics``.

    Args:
        agreement: what was agreed with the federation.
        learner: what learns, with this client's people. Sensitive.
        policy: what this client allows, whatever a server asks; None for a run that is stamped NOT PRIVATE.
        ledger: charged before each round and each release.
        replies: the last replies, so that a repeated instruction gets the same bytes and costs nothing.
        partition: this client's number; seeds the masks of runs that are stamped NOT PRIVATE, nothing else.
        reply_key: signs its replies; None in a simulation, whose server asks for no signature.
        counting: what may be counted, and how; None where no statistics were agreed on.
    """

    def __init__(
        self,
        agreement: Agreement,
        *,
        learner: Learner,
        policy: Policy | None,
        ledger: Ledger,
        replies: ReplyCache,
        partition: int,
        reply_key: SigningKey | None = None,
        counting: Counting | None = None,
    ) -> None:
        self._agreement = agreement
        self._digest = agreement.digest()
        self._learner = learner
        self._schema = learner.schema
        self._policy = policy
        self._ledger = ledger
        self._replies = replies
        self._partition = partition
        self._reply_key = reply_key
        self._counting = counting

    @property
    def schema(self) -> AdapterSchema:
        """Names and shapes of the shared arrays."""
        return self._schema

    @property
    def base_digest(self) -> str:
        return self._agreement.base_digest

    @property
    def agreement_digest(self) -> str:
        return self._digest

    @property
    def server_key(self) -> str:
        """The key whose instructions it follows: the policy's own; without privacy, the agreed one."""
        return self._policy.server_key if self._policy else self._agreement.server_key

    @property
    def reply_key(self) -> SigningKey | None:
        """What the server knows this client by."""
        return self._reply_key

    @property
    def metrics(self) -> tuple[str, ...]:
        """What it may be asked to measure; none by default."""
        return self._agreement.metrics

    @property
    def statistics_schema(self) -> AdapterSchema:
        """Names and shapes of what it may be asked to count; none by default."""
        return self._counting.schema if self._counting else ()

    def train_round(self, instruction: Instruction) -> Answer:
        """Ask the policy, charge the ledger, train one round from the instruction's adapter, and note that it was sent.

        A round that was charged before is answered from the cache. When its reply never left this
        client (a crash came first) it is computed now, on the charge that was already booked.

        Raises:
            Refusal: the round lies outside the plan, the policy does not allow it, or it was answered for another
                adapter.
            PrivacyError: the budget does not cover the round, or the ledger was tampered with.
        """
        plan = self._agreement.plan
        self._check_round(instruction)
        self._ask_policy()
        round_id = f"{instruction.run_id}/{instruction.round_index}"
        release = _Release(round_id, plan.training(plan.local_steps), Kind.TRAINING, self._replies, self._train)
        return self._answer(instruction, release)

    def measure_round(self, instruction: Instruction) -> Answer:
        """Release noised metrics of the instruction's adapter, under the same protocol as ``train_round``.

        Returns:
            Each agreed metric as a number of shape (), float32, and the ledger's entry that covers them.

        Raises:
            Refusal: no metrics were agreed on for after this round, the policy does not allow them, or they were
                released for another adapter.
            PrivacyError: the budget does not cover the release, or the ledger was tampered with.
        """
        self._check_round(instruction)
        if not self._agreement.releases_metrics_in(instruction.round_index):
            raise Refusal(RefusalCode.PLAN, "no metrics were agreed on for after this round")
        self._ask_policy(metrics=self.metrics)
        round_id = f"{instruction.run_id}/{instruction.round_index}/metrics"
        spending = self._agreement.plan.metrics_release()
        release = _Release(round_id, spending, Kind.METRICS, self._replies.beside("metrics"), self._measure)
        return self._answer(instruction, release)

    def count_statistics(self, instruction: Instruction) -> Answer:
        """Release noised counts of items and pairs, once in a run, under the same protocol as ``train_round``.

        Returns:
            The agreed blocks, float32, and the ledger's entry that covers them.

        Raises:
            Refusal: no statistics were agreed on, the policy does not allow them, or they were released for another
                adapter.
            PrivacyError: the budget does not cover the release, or the ledger was tampered with.
        """
        self._check_round(instruction)
        if self._counting is None:
            raise Refusal(RefusalCode.PLAN, "no statistics were agreed on")
        self._ask_policy()
        spending, replies = self._agreement.plan.statistics_release(), self._replies.beside("statistics")
        compute = partial(self._count, self._counting)
        return self._answer(
            instruction, _Release(f"{instruction.run_id}/statistics", spending, Kind.STATISTICS, replies, compute)
        )

    @told()
    def _check_round(self, instruction: Instruction) -> None:
        if instruction.run_id != self._agreement.run_id or instruction.round_index > self._agreement.plan.rounds:
            raise Refusal(RefusalCode.PLAN, "this round is not part of the agreed plan")

    def check_policy(self, metrics: Sequence[str] = ()) -> None:
        """Refuse what the client's own policy does not allow, before the ledger or anyone's data is touched.

        Args:
            metrics: that would be released.

        Raises:
            PrivacyError: names the limit.
        """
        policy, plan, people = self._policy, self._agreement.plan, len(self._learner)
        if plan.max_people is not None and people > plan.max_people:
            raise PrivacyError(f"max_people={plan.max_people}: there are more people here than the plan allows")
        if policy is not None:
            policy.check_server(self._agreement.server_key)
            policy.check_plan(plan)
            policy.check_base(self.base_digest)
            policy.check_code(code_digest())
            policy.check_people(people)
            policy.check_metrics(metrics)
        elif plan.private:
            raise PrivacyError("a private plan without a policy: expected the client's own policy.toml")

    @told()
    def _ask_policy(self, metrics: Sequence[str] = ()) -> None:
        try:
            self.check_policy(metrics)
        except PrivacyError as error:
            raise Refusal(RefusalCode.PLAN, str(error)) from error

    def _check_receipt(self, receipt: Receipt | None) -> None:
        """Stop when the server has seen an entry that the ledger no longer holds: charges were lost."""
        if receipt is not None:
            self._ledger.accept_countersigned(receipt.head, receipt.signature, server_key=self.server_key)

    def _answer(self, instruction: Instruction, release: "_Release") -> Answer:
        """Charge, then compute or repeat; never two answers on one charge. One at a time, whatever is asked."""
        with self._replies.alone(), self._ledger.session():
            if (cached := self._charged(instruction, release)) is not None:
                # A crash may have come between keeping the reply and noting that it was sent.
                return Answer(cached, self._ledger.release(release.round_id))
            reply = release.compute(instruction)
            release.replies.keep(instruction, reply)
            return Answer(reply, self._ledger.release(release.round_id))

    @told()
    def _charged(self, instruction: Instruction, release: "_Release") -> Arrays | None:
        """Charge; what was answered before, if it was."""
        self._check_receipt(instruction.receipt)
        charge = self._ledger.charge(release.round_id, release.spending, plan=self._agreement.plan, kind=release.kind)
        if charge is Charge.CHARGED:
            return None
        cached = release.replies.find(instruction)
        if cached is None and self._ledger.is_released(release.round_id):
            raise Refusal(RefusalCode.REPLAY, "this round was answered for another adapter")
        return cached

    def _train(self, instruction: Instruction) -> Arrays:
        agreement, plan = self._agreement, self._agreement.plan
        taken = (instruction.round_index - 1) * plan.local_steps
        return private_direction(
            self._learner,
            instruction.adapter,
            mechanism=plan.mechanism(self._randomness(instruction.round_index), steps_taken=taken),
            steps=plan.local_steps,
            learning_rate=agreement.local_learning_rate,
        )

    def _measure(self, instruction: Instruction) -> Arrays:
        agreement, names = self._agreement, self.metrics
        values = self._learner.metrics(instruction.adapter, names)
        released = release_metrics(agreement.plan, self._randomness(instruction.round_index), values=values)
        return {name: np.array(value, dtype=np.float32) for name, value in zip(names, released, strict=True)}

    def _count(self, counting: Counting, instruction: Instruction) -> Arrays:
        released = release_statistics(
            self._agreement.plan,
            self._randomness(instruction.round_index),
            people=self._learner.statistics(counting),
            size=parameters_of(counting.schema),
        )
        return unflatten(released, counting.schema)

    def _randomness(self, round_index: int) -> RandomSource:
        """Noise and masks: the operating system's entropy, unless the run is stamped NOT PRIVATE anyway."""
        if self._agreement.plan.private:
            return SecureRandom()
        entropy = np.random.SeedSequence([self._agreement.seed, self._partition, round_index])
        return SeededRandom(int(entropy.generate_state(1)[0]))


class _Release(NamedTuple):
    """One thing that is charged once and answered once."""

    round_id: str
    spending: Steps
    kind: Kind
    replies: ReplyCache
    compute: Callable[[Instruction], Arrays]


def load_merchant(run: Path, partition: int) -> Merchant:
    """Open one simulated client of a run folder; the model is loaded and checked once per process.

    Raises:
        RunError: the folder holds no such run or partition.
        PrivacyError: per-person gradients are not what the guarantee needs, or the ledger is not intact.
    """
    agreement, ranker, counting = resident(run.resolve())
    return Merchant(
        agreement,
        learner=RankerLearner(ranker, client_histories(run, partition), local_training(agreement)),
        policy=policy_of(run, agreement.plan),
        ledger=ledger_of(run, partition, agreement.plan),
        replies=ReplyCache(replies_path(run, partition), durable=False),
        partition=partition,
        counting=counting,
    )
