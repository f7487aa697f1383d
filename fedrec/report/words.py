"""The report's plain language: labels, numbers and the verdict. Pure functions of the checked inputs."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from fedrec.evaluation.protocol import COLD
from fedrec.privacy.trust import CENTRAL, DISTRIBUTED, LOCAL
from fedrec.report.inputs import Comparison, Context, Counted, Gains, Privacy, Summary

STAMP = "NOT PRIVATE"

COLUMNS = {
    "ndcg@10": ("NDCG@10", "how high the right product ranks among the first ten"),
    "hr@10": ("HR@10", "how often it is among the first ten at all"),
    "mrr@10": ("MRR@10", "one over its rank, zero beyond ten"),
    "recall@20": ("Recall@20", "share of the right products among the first twenty"),
    "coverage@10": ("Coverage@10", "share of the catalogue that anybody is shown"),
    "merchant_ndcg@10": ("Merchants", "mean over merchants of the mean NDCG@10 of their people"),
    "worst_decile_ndcg@10": ("Worst tenth", "mean NDCG@10 at the tenth of the merchants that is served worst"),
}

DEPLOYABLE = {
    "frozen_text": ("Product text, untrained", "similarity of titles to recent purchases"),
    "base": ("Public base", "trained on the public panel, no merchant's data"),
    "local_only": ("Each merchant alone", "the base, fine-tuned and with counts on its own people"),
    "shared": ("Federated ranker, local part off", "what the federation itself learned"),
    "federated": ("Federated, as deployed", "with the merchant's local part on"),
}

REFERENCES = {
    "popularity": ("Most popular", "pooled counts of everyone's purchases"),
    "repeat": ("Bought before", "a person's own products, then pooled popularity"),
    "markov_knn": ("Pooled co-occurrence", "Markov chain and item neighbours over everyone's purchases"),
    "shared_no_noise": ("Federated ranker without noise, local part off", "the same training, no privacy"),
    "federated_no_noise": ("Federated without noise", "the same training, no privacy"),
    "centralized": ("All data pooled", "one ranker trained in one place, no privacy"),
}


@dataclass(frozen=True)
class Verdict:
    """What the run showed, in one headline and the sentences below it."""

    outcome: str  # "better" | "worse" | "unclear"
    headline: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class TableRow:
    """One printed row: label, note, cells, and which cells are the best of their group."""

    key: str
    label: str
    note: str
    cells: tuple[str, ...]
    best: tuple[bool, ...]


def ceiling(epsilon: float, digits: int = 2) -> str:
    """Print an epsilon so that rounding never flatters it: upwards."""
    return str(Decimal(repr(epsilon)).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_CEILING))


def scientific(value: float) -> str:
    """1e-05 -> 1e-5."""
    return f"{value:g}".replace("e-0", "e-")


def metric(value: float) -> str:
    """Four digits, as papers print them."""
    return f"{value:.4f}"


def difference(comparison: Comparison) -> str:
    """+0.0046 ± 0.0012 (two paired standard errors)."""
    if comparison.standard_error is None:
        return f"{comparison.difference:+.4f} (standard error unknown)"
    return f"{comparison.difference:+.4f} ± {2 * comparison.standard_error:.4f}"


def outcome(comparison: Comparison) -> str:
    """Say "better" or "worse" only beyond two standard errors, "unclear" otherwise."""
    if comparison.standard_error is None or abs(comparison.difference) <= 2 * comparison.standard_error:
        return "unclear"
    return "better" if comparison.difference > 0 else "worse"


def guarantee(summary: Summary) -> str:
    """Epsilon with everything it needs to mean something, or the stamp."""
    if (privacy := summary.privacy) is None:
        return STAMP
    return (
        f"epsilon {ceiling(privacy.epsilon)} at delta {scientific(privacy.delta)} for {privacy.unit}, "
        f"neighbours: {privacy.relation}, by {privacy.accountant}"
    )


def budget(privacy: Privacy, context: Context) -> float:
    """The epsilon that was asked for, or the one at the end of the run when the settings do not say."""
    asked = context.config.get("privacy", {}).get("epsilon")
    return float(privacy.epsilon if asked is None else asked)


def trust_warning(summary: Summary) -> str:
    """What has to be seen at once where the guarantee leans on more than each client's own noise; else nothing."""
    trust = summary.privacy.trust if summary.privacy else LOCAL
    return {
        LOCAL: "",
        DISTRIBUTED: "SIMULATION ONLY: trust=distributed shares the noise, and no secure sum stood behind this run.",
        CENTRAL: "SIMULATION ONLY: trust=central leaves the noise to a server that sees each client's exact sum.",
    }[trust]


def verdict(summary: Summary, context: Context) -> Verdict:
    """The first thing a reader sees; the same words in the page, the JSON and the terminal."""
    found = outcome(context.federated_vs_local_only)
    headline = {
        "better": "Federation helped: the merchants rank better together than each alone.",
        "worse": "Federation hurt: the merchants rank better alone.",
        "unclear": "No measurable difference: this run cannot tell federated from alone.",
    }[found]
    sentences = [_against_alone(summary, context.federated_vs_local_only), _against_base(summary, context)]
    if context.counted:
        sentences.append(_counted(context.counted))
    sentences.append(who_gains(summary.fairness.over_local_only))
    if context.split:
        pairs, adapter = context.split["pairs"], context.split["adapter"]
        sentences.append(f"Of the budget, pairs get {pairs}; the adapter gets {adapter}.")
    if cost := _cost_of_noise(summary):
        sentences.append(cost)
    if warning := trust_warning(summary):
        sentences.append(warning)
    if summary.privacy is None:
        sentences.append(f"{STAMP}: the updates carried no noise, so this run protects nobody.")
    return Verdict(found, headline, tuple(sentences))


def _against_alone(summary: Summary, compared: Comparison) -> str:
    alone, together = (summary.metrics[row]["ndcg@10"] for row in ("local_only", "federated"))
    relative = f", {(together - alone) / alone:+.1%}" if alone > 0 else ""
    return (
        f"NDCG@10 is {metric(together)} federated and {metric(alone)} alone{relative}; the paired difference over "
        f"{compared.people:,} people is {difference(compared)} (two standard errors)."
    )


def _against_base(summary: Summary, context: Context) -> str:
    if context.published_round == 0 and not (context.counted and context.counted.weight):
        return "No round improved on the public base by the panel's measure, so the base was published unchanged."
    base, shared = (summary.metrics[row]["ndcg@10"] for row in ("base", "shared"))
    ending = {
        "better": "so the federation itself learned something",
        "worse": "so the federation itself did harm",
        "unclear": "which is within the noise of the measurement",
    }[outcome(context.shared_vs_base)]
    return (
        f"With every merchant's local part off, the federated ranker reaches {metric(shared)} and the public base "
        f"{metric(base)}: {difference(context.shared_vs_base)}, {ending}."
    )


def _counted(counted: Counted) -> str:
    use = f"enter the score with weight {counted.weight:g}" if counted.weight else "do not help on the panel: left out"
    return (
        f"{counted.clients} clients counted pairs once; {counted.pairs:,} of {counted.candidates:,} public pairs stand "
        f"out from noise of {counted.noise_std:.3g} and {use}."
    )


def who_gains(gains: Gains) -> str:
    """How federating is shared out: an average may hide merchants that are worse off."""
    worst = gains.worst_decile
    change = f"gains {worst:+.4f}" if worst > 0 else f"loses {-worst:.4f}" if worst < 0 else "stays where it was"
    return (
        f"{gains.gaining:,} of {gains.merchants:,} merchants gain over being alone, {gains.losing:,} lose; "
        f"the worst tenth {change}."
    )


def new_products(summary: Summary) -> str:
    """How well products are found that nobody had taken; nothing where nobody was asked for one."""
    if not summary.cold_people:
        return ""
    federated, base, text = (summary.metrics[row][COLD] for row in ("federated", "base", "frozen_text"))
    return (
        f"{summary.cold_people:,} people were asked for a product that is in nobody's training history: it is among "
        f"the first ten for {metric(federated)} of them federated, {metric(base)} by the public base, {metric(text)} "
        "by product text, untrained."
    )


def new_merchants(summary: Summary) -> str:
    """What merchants have of the federation that took no part in it; nothing where all did."""
    if (apart := summary.held_out) is None:
        return ""
    alone, together = (apart.metrics[row]["ndcg@10"] for row in ("local_only", "federated"))
    ending = {
        "better": "so what was learned carries over",
        "worse": "so what was learned does them harm",
        "unclear": "which is within the noise of the measurement",
    }[outcome(apart.federated_vs_local_only)]
    return (
        f"{apart.merchants:,} merchants with {apart.people:,} people took no part. With the federated ranker and their "
        f"own local part they reach NDCG@10 {metric(together)}, alone {metric(alone)}: "
        f"{difference(apart.federated_vs_local_only)}, {ending}."
    )


def _cost_of_noise(summary: Summary) -> str:
    if summary.privacy is None or "federated_no_noise" not in summary.metrics:
        return ""
    without, private = (summary.metrics[row]["ndcg@10"] for row in ("federated_no_noise", "federated"))
    return (
        f"Without the noise of the guarantee it would have been {metric(without)}: "
        f"privacy changed it by {private - without:+.4f}."
    )


def table(summary: Summary) -> dict[str, list[TableRow]]:
    """Both groups of rows in reading order; the best of a group is marked in each column, ties alike."""
    groups = {"deployable": DEPLOYABLE, "references": REFERENCES}
    return {name: _group(summary, labels) for name, labels in groups.items()}


def _group(summary: Summary, labels: dict[str, tuple[str, str]]) -> list[TableRow]:
    present = {key: summary.metrics[key] for key in labels if key in summary.metrics}
    printed = [[metric(values[column]) for values in present.values()] for column in COLUMNS]
    best = [max(column) if len(set(column)) > 1 else None for column in printed]  # all alike: there is no best
    rows = []
    for key, values in present.items():
        label, note = labels[key]
        if summary.privacy is None and key in {"shared", "federated"}:
            label = f"{label} ({STAMP})"
        cells = tuple(metric(values[column]) for column in COLUMNS)
        # Equal as printed is equal: nobody can see, or should care about, the fifth digit.
        rows.append(TableRow(key, label, note, cells, tuple(c == b for c, b in zip(cells, best, strict=True))))
    return rows


def quality_caption(measured: list[tuple[int, float]], published_round: int | None) -> str:
    """What the quality curve shows, for those who do not see it."""
    (first, start), (last, end) = measured[0], measured[-1]
    top = max(measured, key=lambda pair: pair[1])
    text = (
        f"NDCG@10 on the public panel: {metric(start)} after round {first}, {metric(end)} after round {last}; "
        f"highest {metric(top[1])} after round {top[0]}."
    )
    if published_round is None:
        return text
    kept = "the public base, before any round" if published_round == 0 else f"round {published_round}"
    return f"{text} The server published {kept}."


def epsilon_caption(spent: list[tuple[int, float]], budget: float) -> str:
    """What the epsilon curve shows; the whole statement stands in the privacy section."""
    last, end = spent[-1]
    return (
        f"Epsilon spent per person at one merchant: {ceiling(end)} after round {last}, "
        f"of a budget of {ceiling(budget)}. "
        "Delta, unit, relation and accountant: under Privacy."
    )


def gains_caption(by_size: list[tuple[int, int, float]]) -> str:
    """What merchants of each size gain, from (least people, most people, mean gain)."""
    groups = "; ".join(f"{least:,} to {most:,} people {gain:+.4f}" for least, most, gain in by_size)
    return (
        f"Mean change of NDCG@10 over being alone, by people at a merchant: {groups}. "
        "The fewer people are measured, the more a merchant's own figure is chance."
    )


def merchants_caption(pairs: list[tuple[float, float]]) -> str:
    """How many merchants gained and lost."""
    gained = sum(together > alone for alone, together in pairs)
    lost = sum(together < alone for alone, together in pairs)
    return (
        f"Of {len(pairs):,} merchants with people to measure, {gained:,} rank better federated than alone, "
        f"{lost:,} worse, {len(pairs) - gained - lost:,} the same."
    )
