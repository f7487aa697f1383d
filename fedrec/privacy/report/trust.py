"""What a report says of its trust model: what is released, who sees what, and who must be trusted for what."""

from typing import NamedTuple

from fedrec.privacy.report.document import Actor, Facts
from fedrec.privacy.trust import CENTRAL, DISTRIBUTED, LOCAL, trust_sentence


class _Words(NamedTuple):
    """How one trust model is put: what every other sentence here is made of."""

    answer: str
    released: str
    noise_added: str
    server_sees: str
    server_trusted_for: str
    others_trusted_for: str
    safe_from: str
    because: str


_NOTHING = "nothing: what it sees is noised already"
_WORDS = {
    LOCAL: _Words(
        answer="local to each client; who sees what",
        released="Every noised update of every round leaves the client",
        noise_added="on the client, before anything leaves it",
        server_sees="each client's update of every round, who replied and when",
        server_trusted_for=_NOTHING,
        others_trusted_for=_NOTHING,
        safe_from="Everyone but the client itself",
        because="the server, the other clients and whoever gets the ranker need not be trusted: "
        "they see noised updates.",
    ),
    DISTRIBUTED: _Words(
        answer="distributed: the clients share the noise, and only their sums are covered; who sees what",
        released="One sum of clients' updates is released in every round",
        noise_added="on the clients, a share by each; only their sum carries all of it",
        server_sees="each client's update of every round with a share of the noise: no secure sum hid it",
        server_trusted_for="to look at nothing but sums of as many updates as share the noise",
        others_trusted_for="to add their shares of the noise: where t of m do not, sigma·sqrt((m - t)/m) is left",
        safe_from="Who sees nothing but sums",
        because="the guarantee is of sums of the updates of all who share the noise. "
        "No secure sum stood behind this run: simulation only.",
    ),
    CENTRAL: _Words(
        answer="central: the server is trusted with exact sums and with the noise; who sees what",
        released="One noised sum of clients' updates is released in every round",
        noise_added="on the server, once to the sum of a round",
        server_sees="each client's exact clipped sum of every round, who replied and when",
        server_trusted_for="all it sees, and to add the noise",
        others_trusted_for=_NOTHING,
        safe_from="Everyone but client and server",
        because="whoever runs the server sees each client's exact clipped sum and is trusted to add the noise: "
        "simulation only.",
    ),
}


def model_of(facts: Facts) -> str:
    """Local, distributed or central: the plan's, or the policy's where there is no plan."""
    named = (facts.plan or {}).get("trust", facts.policy.trust if facts.policy else LOCAL)
    return str(named) if named in _WORDS else LOCAL


def relied_on(facts: Facts) -> str:
    """Whom the guarantee relies on; empty without one."""
    sharers = (facts.plan or {}).get("noise_sharers")
    return trust_sentence(model_of(facts), sharers if type(sharers) is int else None) if facts.private else ""


def answer(facts: Facts) -> str:
    """The trust model in a few words."""
    return _WORDS[model_of(facts)].answer


def noise_added(facts: Facts) -> str:
    """Where noise is added."""
    return _WORDS[model_of(facts)].noise_added


def safe_from(facts: Facts) -> tuple[str, str]:
    """From whom people are protected, and why."""
    words = _WORDS[model_of(facts)]
    return words.safe_from, words.because


def released(facts: Facts) -> str:
    """Everything that the guarantee covers."""
    kinds = {group.kind for ledger in facts.ledgers for group in ledger.groups}
    more = " Noised evaluation metrics leave too, and are charged like any release." if "metrics" in kinds else ""
    more += " Noised counts of items and of public pairs leave once in a run." if "statistics" in kinds else ""
    less = "" if model_of(facts) == LOCAL else " It does not cover what a single client sends."
    return (
        f"{_WORDS[model_of(facts)].released}, and the guarantee covers all of them together: "
        f"so it covers every checkpoint and the final adapter, which are computed from them.{less}{more}"
    )


def actors(facts: Facts) -> tuple[Actor, ...]:
    """Who sees what, and who must be trusted for what."""
    words, everything = _WORDS[model_of(facts)], "everything it sees"
    server, others, reader = (
        trusted_for if facts.private else everything
        for trusted_for in (words.server_trusted_for, words.others_trusted_for, _NOTHING)
    )
    rows = (
        ("the client's own machine", "its people's histories", "all of it: the installed code, entropy, keys, ledger"),
        ("the server", words.server_sees, server),
        ("the other clients", "the shared adapter of each round", others),
        ("whoever gets the published ranker", "the final adapter", reader),
        ("whoever signs this report", "the ledgers", "that the facts are those of the ledgers; a key holder can check"),
    )
    return tuple(Actor(who=who, sees=sees, trusted_for=trusted) for who, sees, trusted in rows)
