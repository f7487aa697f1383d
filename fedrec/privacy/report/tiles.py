"""The first screen: four questions that a newcomer asks, each with its answer."""

from fedrec.privacy.report import trust, words
from fedrec.privacy.report.blocks import Tile
from fedrec.privacy.report.document import PrivacyReport
from fedrec.privacy.report.words import number
from fedrec.privacy.trust import LOCAL


def tiles(report: PrivacyReport) -> tuple[Tile, ...]:
    """What is protected, from whom, how much is left, what is not protected."""
    found = report.findings
    if found.guarantee is None or found.headroom is None:
        return (
            Tile("What is protected?", "Nothing", "the updates carried no noise", is_warning=True),
            Tile("From whom?", "Nobody", "whoever sees an update may learn about a person", is_warning=True),
            Tile("How much is left?", words.STAMP, "no epsilon exists for this run", is_warning=True),
            Tile("What is not protected?", "Everything", "use it with made-up or public data only", is_warning=True),
        )
    guarantee, headroom = found.guarantee, found.headroom
    at_most = "at most " if guarantee.filter_order is not None else ""
    several = f"{at_most}ε {number(found.epsilon_for_person_at['3'])}"
    return (
        Tile(
            "What is protected?",
            "A person's whole history",
            f"unit: {guarantee.unit}. Whether someone is in the data at all; neighbours: {guarantee.relation}.",
        ),
        Tile(
            "From whom?",
            *trust.safe_from(report.facts),
            is_warning=trust.model_of(report.facts) != LOCAL,
        ),
        Tile(
            "How much is left?",
            f"ε {number(headroom.epsilon_left)} of {number(headroom.epsilon_limit)}",
            f"spent: {words.whole_epsilon(guarantee.epsilon, guarantee)}. {words.rounds_sentence(headroom)}",
            is_warning=found.verdict.outcome == "over",
        ),
        Tile(
            "What is not protected?",
            "Several clients at once, side channels",
            f"a customer of three clients has {several} at the same delta. Not covered: what a client shows in its "
            "own shop, its machine, that and when it took part; the list below has more.",
        ),
    )
