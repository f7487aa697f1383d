"""The same report in others' terms: the deployments registry's fields, and NIST's questions.

Registry: field names of the Differential Privacy Deployments Registry, https://arxiv.org/abs/2509.13509 and
https://github.com/opendp/deployments-registry-data; fields about a published product are left to its publisher.
NIST: subjects of SP 800-226, Guidelines for Evaluating Differential Privacy Guarantees, March 2025,
https://doi.org/10.6028/NIST.SP.800-226, in our words. Answering its questions is not a judgement by NIST.
"""

from typing import Any

from fedrec.privacy.plan import RELATION, UNIT
from fedrec.privacy.report import trust, words
from fedrec.privacy.report.document import Answer, Facts, Guarantee

_QUESTIONS = (
    ("How strong is the guarantee?", "epsilon and delta, with headroom", "verdict"),
    ("Who or what is the unit of privacy?", "a person's whole history at a client; bounds on contribution", "unit"),
    ("How do neighbouring data sets differ?", "add or remove; also replace-one and zero-out", "neighbours"),
    ("Which algorithm gives the guarantee, and is it implemented right?", "mechanism, sampling, audit", "mechanism"),
    ("How do releases compose?", "by events, over rounds and runs", "composition"),
    ("How was delta chosen?", "the rule and the n it was checked against", "delta"),
    ("Which trust model is it?", "", "trust"),
    ("Which side channels remain?", "floating point, timing, metadata: listed as not covered", "not-covered"),
    ("How are access and keys secured?", "not by this report: the client's own machine is trusted", "not-covered"),
    ("How was the data collected?", "not covered", "not-covered"),
    ("What does it cost in usefulness, and for whom?", "not here: see the run's own report", "not-covered"),
)


def nist_answers(facts: Facts) -> tuple[Answer, ...]:
    """Each question with the section that answers it."""
    return tuple(Answer(question=q, answer=a or trust.answer(facts), section=s) for q, a, s in _QUESTIONS)


def registry(facts: Facts, guarantee: Guarantee | None) -> dict[str, Any]:
    """This deployment under the registry's field names; ``None`` where it makes no such promise."""
    groups = [group for ledger in facts.ledgers for group in ledger.groups]
    released = [kind for kind in ("metrics", "statistics") if any(group.kind == kind for group in groups)]
    return {
        "deployment": {
            "product": {
                "name": facts.name,
                "data_product_type": "Machine learning model",
                "description": "Adapters of a recommendation ranker, trained by federated learning.",
            },
            "dp_flavor": _flavor(guarantee),
            "privacy_loss": {
                "privacy_unit": "User-level",
                "privacy_unit_description": f"{UNIT}: the whole history of one person at one client",
                "privacy_parameters": None if guarantee is None else _parameters(guarantee),
                "privacy_parameters_description": words.STAMP
                if guarantee is None
                else words.whole_epsilon(guarantee.epsilon, guarantee),
            },
            "model": {
                "model_name": trust.model_of(facts).capitalize(),
                "model_name_description": f"Noise is added {trust.noise_added(facts)}.",
                "actors": "; ".join(f"{actor.who}: {actor.trusted_for}" for actor in trust.actors(facts)),
                "release_type": "Many releases",
                "release_type_description": trust.released(facts),
                "access_type": "Non-interactive",
            },
            "accounting": {
                "post_processing": "Averaging, optimiser, checkpoints and the published adapter.",
                "composition": "Rounds, runs and metric releases of one ledger, by their events.",
            },
            "implementation": {
                "pre_processing_eda_hyperparameter_tuning": "Not counted: settings must be chosen on public data.",
                "mechanisms": "DP-SGD: Poisson-subsampled Gaussian"
                + (f"; Gaussian for {' and '.join(released)}." if released else "."),
            },
        }
    }


def _flavor(guarantee: Guarantee | None) -> dict[str, Any] | None:
    if guarantee is None:
        return None
    return {
        "name": "Approximate DP",
        "input_metric": f"people by whom two data sets differ ({RELATION})",
        "bound_on_input_distance": 1,
        "output_measure": "(epsilon, delta)",
        "data_domain": "purchase histories of one client's people",
        "unprotected_quantities": "that a client took part, and when",
    }


def _parameters(guarantee: Guarantee) -> dict[str, Any]:
    return {"epsilon": guarantee.epsilon, "delta": guarantee.delta}
