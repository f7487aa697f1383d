"""A merchant (or a device): its people's histories, its ledger, and the round it is willing to train."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from clients.replies import ReplyCache
from clients.training import LocalTraining, private_direction, step_losses
from fedrec.agreement import Agreement, agreed_ranker, read_agreement
from fedrec.data.histories import Histories
from fedrec.model.adapters import schema_of
from fedrec.model.ranker import Ranker
from fedrec.privacy.ledger import Charge, Ledger
from fedrec.privacy.randomness import RandomSource, SecureRandom, SeededRandom
from fedrec.privacy.selfcheck import verify_person_gradients
from fedrec.schema import AdapterSchema, Arrays
from fedrec.wire import Instruction, Refusal, RefusalCode
from fedrec.workspace import client_histories, ledger_of, replies_path

SELF_CHECK_PEOPLE = 4
SELF_CHECK_EVENTS = 9


class Merchant:
    """Everything of one client. What it knows of people leaves only through ``train_round``.

    Args:
        agreement: what was agreed with the federation.
        ranker: the resident model with its adapter; overwritten each round, shared by the clients of one process.
        histories: one row a person. Sensitive.
        ledger: charged before each round.
        replies: the last reply, so that a repeated instruction gets the same bytes and costs nothing.
        partition: this client's number; seeds the masks of runs that are stamped NOT PRIVATE, nothing else.
    """

    def __init__(
        self,
        agreement: Agreement,
        *,
        ranker: Ranker,
        histories: Histories,
        ledger: Ledger,
        replies: ReplyCache,
        partition: int,
    ) -> None:
        self._agreement = agreement
        self._ranker = ranker
        self._histories = histories
        self._ledger = ledger
        self._replies = replies
        self._partition = partition

    @property
    def schema(self) -> AdapterSchema:
        """Names and shapes of the shared arrays."""
        return schema_of(self._ranker)

    @property
    def base_digest(self) -> str:
        return self._agreement.base_digest

    @property
    def plan_digest(self) -> str:
        return self._agreement.plan.digest()

    def train_round(self, instruction: Instruction) -> Arrays:
        """Charge the ledger, train one round from the instruction's adapter, and note that it was sent.

        A round that was charged before is answered from the cache. When its reply never left this
        client (a crash came first) it is computed now, on the charge that was already booked.

        Raises:
            Refusal: the round lies outside the plan, or was answered for another adapter.
            PrivacyError: the budget does not cover the round.
        """
        plan = self._agreement.plan
        if instruction.run_id != self._agreement.run_id or instruction.round_index > plan.rounds:
            raise Refusal(RefusalCode.PLAN, "this round is not part of the agreed plan")
        with self._replies.alone():
            return self._answer(instruction, f"{instruction.run_id}/{instruction.round_index}")

    def _answer(self, instruction: Instruction, round_id: str) -> Arrays:
        """Charge, then compute or repeat; never two answers on one charge."""
        if self._ledger.charge(round_id, self._agreement.plan.local_steps) is Charge.ALREADY_CHARGED:
            if (cached := self._replies.find(instruction)) is not None:
                self._ledger.release(round_id)  # a crash may have come between keeping the reply and noting it
                return cached
            if self._ledger.is_released(round_id):
                raise Refusal(RefusalCode.REPLAY, "this round was answered for another adapter")
        reply = self._train(instruction)
        self._replies.keep(instruction, reply)
        self._ledger.release(round_id)
        return reply

    def _train(self, instruction: Instruction) -> Arrays:
        agreement, plan = self._agreement, self._agreement.plan
        taken = (instruction.round_index - 1) * plan.local_steps
        return private_direction(
            self._ranker,
            self._histories,
            instruction.adapter,
            mechanism=plan.mechanism(self._randomness(instruction.round_index), steps_taken=taken),
            steps=plan.local_steps,
            learning_rate=agreement.local_learning_rate,
            training=local_training(agreement),
        )

    def _randomness(self, round_index: int) -> RandomSource:
        """Noise and masks: the operating system's entropy, unless the run is stamped NOT PRIVATE anyway."""
        if self._agreement.plan.private:
            return SecureRandom()
        entropy = np.random.SeedSequence([self._agreement.seed, self._partition, round_index])
        return SeededRandom(int(entropy.generate_state(1)[0]))


def local_training(agreement: Agreement) -> LocalTraining:
    """Return the part of the agreement that shapes a person's loss."""
    return LocalTraining(agreement.mask_last, agreement.negatives, agreement.seed)


def load_merchant(run: Path, partition: int) -> Merchant:
    """Open one simulated client of a run folder; the model is loaded and checked once per process.

    Raises:
        RunError: the folder holds no such run or partition.
        PrivacyError: per-person gradients are not what the guarantee needs, or the ledger is not intact.
    """
    agreement, ranker = _resident(run.resolve())
    return Merchant(
        agreement,
        ranker=ranker,
        histories=client_histories(run, partition),
        ledger=ledger_of(run, partition, agreement),
        replies=ReplyCache(replies_path(run, partition)),
        partition=partition,
    )


def check_person_gradients(ranker: Ranker, training: LocalTraining) -> None:
    """Refuse to train unless each person's gradient is theirs alone; tried on made-up people.

    Raises:
        PrivacyError: the loss couples people, or Opacus gets a gradient wrong.
    """
    rng = np.random.default_rng(0)
    made_up = [
        rng.integers(0, ranker.items, SELF_CHECK_EVENTS + person).tolist() for person in range(SELF_CHECK_PEOPLE)
    ]
    histories = Histories.from_lists(made_up)
    # A made-up history may repeat an item at once, which mask_last would score minus infinity; real ones were merged.
    unmasked = replace(training, mask_last=False)
    verify_person_gradients(
        ranker,
        lambda rows: step_losses(ranker, histories, rows.numpy(), step=0, training=unmasked),
        people=SELF_CHECK_PEOPLE,
    )


@lru_cache(maxsize=2)
def _resident(run: Path) -> tuple[Agreement, Ranker]:
    """The one copy of the model in this process."""
    agreement = read_agreement(run)
    ranker = agreed_ranker(agreement, run)
    check_person_gradients(ranker, local_training(agreement))
    return agreement, ranker
