"""The report as a list of sections made of plain blocks: what html and markdown both print, in the same words."""

from fedrec.privacy.report import trust, words
from fedrec.privacy.report.blocks import Block, Section
from fedrec.privacy.report.document import Facts, Findings, Signed
from fedrec.privacy.report.words import number


def sections(signed: Signed) -> tuple[Section, ...]:
    """Every section in reading order; a run without privacy has no numbers to show."""
    facts, found = signed.report.facts, signed.report.findings
    private = [
        _unit(facts, found),
        _neighbours(found),
        _mechanism(facts, found),
        _accountant(found),
        _composition(found),
        _delta(found),
        _rounds(found),
        _several_clients(found),
        _attacker(found),
    ]
    return tuple(
        section
        for section in (
            _trust(facts, found),
            _not_covered(found),
            *private,
            _audit(found),
            _clients(found),
            _nist(found),
            _provenance(signed),
        )
        if section is not None
    )


def _text(text: str) -> Block:
    return Block("text", text=text)


def _note(found: Findings) -> Block:
    """What each epsilon of a section is to be read with."""
    if (guarantee := found.guarantee) is None:
        return Block("note", text=words.STAMP)
    return Block(
        "note",
        text=f"Epsilon at delta {number(guarantee.delta)}, unit {guarantee.unit}, neighbours: {guarantee.relation} "
        f"unless said otherwise, by {guarantee.accountant}; rounded up.",
    )


def _if_fixed(found: Findings, text: str) -> str:
    """Mark a number that bounds nothing where parameters may have been chosen on the way."""
    is_filtered = found.guarantee is not None and found.guarantee.filter_order is not None
    return f"{text}, {words.IF_FIXED}" if is_filtered else text


def _facts(*rows: tuple[str, str]) -> Block:
    return Block("facts", rows=rows)


def _trust(facts: Facts, found: Findings) -> Section:
    rows = tuple((actor.who, actor.sees, actor.trusted_for) for actor in found.trust)
    table = Block("table", columns=("Who", "Sees", "Must be trusted for"), rows=rows, is_words=True)
    said = [_text(text) for text in (trust.relied_on(facts), trust.released(facts)) if text]
    return Section("trust", "Who must be trusted, and what is released", (*said, table))


def _unit(facts: Facts, found: Findings) -> Section | None:
    if (guarantee := found.guarantee) is None:
        return None
    plan = facts.plan or {}
    rows = [("Unit", guarantee.unit)]
    if guarantee.clip_norm is not None:
        rows.append(("One step's contribution, L2 norm", f"at most {number(guarantee.clip_norm)} (clip norm)"))
    if plan:
        rows += [("Clipping", str(plan.get("clipping"))), ("Divisor", "public: sampling rate times expected people")]
    caps = sorted({group.batch_cap for one in facts.ledgers for group in one.groups if group.batch_cap is not None})
    rows.append(("Cap on people in a step", ", ".join(map(str, caps)) or "none"))
    text = (
        "A person's whole history at one client is one record. In a step a person is in or out by an independent coin; "
        "someone who is in gives one window of the history, whose gradient is clipped before it is summed. Nothing "
        "else of the history counts, so its length does not matter."
    )
    return Section("unit", "Unit, and how a contribution is bounded", (_text(text), _facts(*rows)))


def _neighbours(found: Findings) -> Section | None:
    if found.guarantee is None or found.bounds is None:
        return None
    rows = (
        (found.guarantee.relation, number(found.guarantee.epsilon), "what this report promises"),
        (
            "replace one person",
            number(found.bounds.epsilon_replace_one),
            _if_fixed(found, "someone swapped for someone else"),
        ),
        (
            "zero out one person",
            number(found.bounds.epsilon_zero_out),
            _if_fixed(found, "someone's contribution set to nothing"),
        ),
    )
    table = Block("table", columns=("Neighbouring data sets", "Epsilon", "Reading"), rows=rows, is_words=True)
    return Section("neighbours", "Neighbours", (table, _note(found)))


def _mechanism(facts: Facts, found: Findings) -> Section | None:
    if (guarantee := found.guarantee) is None or found.bounds is None:
        return None
    rows = [("Mechanism", "Gaussian noise on a sum of clipped per-person gradients (DP-SGD)")]
    if guarantee.noise_multiplier is not None and guarantee.sampling_rate is not None:
        rows += [
            ("Noise multiplier", number(guarantee.noise_multiplier)),
            ("Sampling rate", number(guarantee.sampling_rate)),
        ]
    rows += [
        ("Steps taken", str(guarantee.steps)),
        ("Where noise is added", trust.noise_added(facts)),
        ("Randomness", words.RANDOMNESS),
        ("Sampling assumed by the accountant", "Poisson: an independent coin for each person and step"),
        ("Sampling used", "the same; an empty step is noised and charged"),
        ("Amplification by the server's choice of clients", "none claimed"),
        ("Epsilon with sampling", number(guarantee.epsilon)),
        (
            _if_fixed(found, "Epsilon without it (everyone in every step)"),
            number(found.bounds.epsilon_without_amplification),
        ),
    ]
    return Section("mechanism", "Mechanism, noise and sampling", (_facts(*rows), _note(found)))


def _accountant(found: Findings) -> Section | None:
    if (bounds := found.bounds) is None or found.guarantee is None:
        return None
    none = "no bound known for a capped batch"
    others = (
        ("Renyi accounting (RDP), ours", bounds.rdp_epsilon),
        ("Renyi accounting, Opacus", bounds.opacus_rdp_epsilon),
    )
    rows = [(found.guarantee.accountant, number(found.guarantee.epsilon))]
    if bounds.epsilon_if_fixed is not None:
        rows.append((_if_fixed(found, "Privacy loss distributions (PLD)"), number(bounds.epsilon_if_fixed)))
    rows += [(_if_fixed(found, name), none if value is None else number(value)) for name, value in others]
    if bounds.filter_epsilon is not None and bounds.epsilon_if_fixed is None:
        rows.append(("Renyi filter, for parameters chosen on the way", number(bounds.filter_epsilon)))
    text = (
        "Renyi accounting is other mathematics and must lie above privacy loss distributions, which are discretised "
        "upwards, then rounded up. The Gaussian (CLT) approximation is never used. "
    )
    is_filtered = bounds.epsilon_if_fixed is not None
    text += words.CHOSEN_ON_THE_WAY if is_filtered else "What the first row says is never less than what was spent."
    table = Block("table", columns=("Accountant", "Epsilon"), rows=tuple(rows))
    return Section("accountant", "Accountant and cross-check", (_text(text), table, _note(found)))


def _composition(found: Findings) -> Section | None:
    if (composition := found.composition) is None:
        return None
    rows = tuple(
        (
            f"{row.run} ({row.kind})",
            row.plan[:12],
            str(row.charges),
            str(row.steps),
            number(row.noise_multiplier),
            number(row.sampling_rate) + ("" if row.batch_cap is None else f", at most {row.batch_cap}"),
            number(row.epsilon),
        )
        for row in composition.rows
    )
    columns = ("Run", "Plan", "Charges", "Steps", "Noise", "Sampling", _if_fixed(found, "Epsilon alone"))
    text = (
        f"Everything the ledger {composition.ledger} holds, whatever run it was for. All of it composed by events: "
        f"epsilon {number(composition.epsilon_by_events)}. Adding up the rows would give "
        f"{number(composition.epsilon_added_up)}, a bound only if their deltas are added up too."
    )
    return Section(
        "composition", "Composition over runs", (_text(text), Block("table", columns=columns, rows=rows), _note(found))
    )


def _delta(found: Findings) -> Section | None:
    if found.delta_rule is None:
        return None
    return Section("delta", "Delta and its rule", (_text(found.delta_rule.sentence),))


def _rounds(found: Findings) -> Section | None:
    if found.headroom is None:
        return None
    points = tuple((int(at), epsilon) for at, epsilon in found.epsilon_by_round.items())
    blocks = [_text(words.rounds_sentence(found.headroom))]
    if points:
        last, spent = points[-1]
        limit = number(found.headroom.epsilon_limit)
        text = f"Epsilon {number(spent)} after charge {last}, of {limit} that the policy allows."
        rows = tuple((str(at), number(epsilon)) for at, epsilon in points)
        columns, limit_at = ("Charges", "Epsilon"), found.headroom.epsilon_limit
        blocks.append(Block("curve", text=text, columns=columns, rows=rows, points=points, limit=limit_at))
    return Section("rounds", "Epsilon by round, and rounds left", (*blocks, _note(found)))


def _several_clients(found: Findings) -> Section | None:
    if not found.epsilon_for_person_at:
        return None
    rows = tuple((at, number(epsilon)) for at, epsilon in found.epsilon_for_person_at.items())
    text = "Someone whose history lies at several clients that each spent what the largest spender did."
    if found.guarantee is not None and found.guarantee.filter_order is not None:
        text += f" Each row is at most so much, by {found.guarantee.accountant}."
    table = Block("table", columns=("Clients", "Epsilon"), rows=rows)
    return Section("several-clients", "One person at several clients", (_text(text), table, _note(found)))


def _attacker(found: Findings) -> Section | None:
    if (attacker := found.attacker) is None:
        return None
    text = (
        "An interpretation of the same releases, not another promise. The attacker knows everyone else's history, "
        "every public number and every release, and must say whether one person took part."
    )
    if found.guarantee is not None and found.guarantee.filter_order is not None:
        text += f" All of it holds {words.IF_FIXED}, and is no bound otherwise."
    rows = (
        ("Advantage: true positives less false positives, at most", number(attacker.advantage)),
        *(
            (f"True-positive rate at a false-positive rate of {rate}, at most", number(v))
            for rate, v in attacker.true_positive_rate_at.items()
        ),
        ("As hard to tell apart as one Gaussian release (GDP) with mu", number(attacker.gdp_mu)),
    )
    return Section("attacker", "What an attacker can do", (_text(text), _facts(*rows), _note(found)))


def _audit(found: Findings) -> Section:
    return Section("audit", "Audit by attack", (_facts(("Status", found.audit.status)), _text(found.audit.sentence)))


def _clients(found: Findings) -> Section:
    def shown(value: float | None) -> str:
        return "–" if value is None else number(value)

    rows = tuple(
        (row.name, str(row.rounds), str(row.steps), shown(row.epsilon), shown(row.epsilon_left), row.status)
        for row in found.clients
    )
    columns = ("Client", "Rounds", "Steps", "Epsilon", "Left", "Status")
    blocks = [_text(words.OPERATOR_ONLY), Block("table", columns=columns, rows=rows), _note(found)]
    if found.guarantee is not None and found.guarantee.filter_order is not None:
        blocks.insert(
            1,
            _text(
                "A client with one run alone is stated by privacy loss distributions (PLD), the others by the filter."
            ),
        )
    return Section("clients", "Client by client", tuple(blocks), is_operator_only=True)


def _not_covered(found: Findings) -> Section:
    bullets = Block("bullets", rows=tuple((limit,) for limit in found.not_covered))
    return Section("not-covered", "What is not covered", (bullets,))


def _nist(found: Findings) -> Section:
    rows = tuple((answer.question, answer.answer, answer.section) for answer in found.nist_sp_800_226)
    text = (
        "The subjects of NIST SP 800-226, Guidelines for Evaluating Differential Privacy Guarantees, in our words, and "
        "where this report answers them. It is a map, not a judgement by anyone."
    )
    table = Block("table", columns=("Question", "Answer", "Section"), rows=rows, is_words=True)
    return Section("questions", "Questions an evaluator asks", (_text(text), table))


def _provenance(signed: Signed) -> Section:
    facts = signed.report.facts
    heads = tuple((f"ledger head, {one.name}", one.head) for one in facts.ledgers[:20])
    more = (("further ledger heads", f"{len(facts.ledgers) - 20} in the signed document"),) * (len(facts.ledgers) > 20)
    rows = (
        ("made at", facts.made_at),
        ("source", f"{facts.source} {facts.name}"),
        *facts.digests.items(),
        *(("code that could train", digest) for digest in (facts.policy.allowed_code if facts.policy else ())),
        *heads,
        *more,
    )
    versions = tuple(facts.versions.items())
    signature = (("public key", signed.public_key), ("signature", signed.signature))
    text = (
        "Ed25519 over the document embedded in this file. To check the signature, every visible word, the arithmetic "
        "and the ledger, without a network:"
    )
    command = f"fedrec privacy verify REPORT --public-key {signed.public_key}"
    blocks = (_facts(*rows), _facts(*versions), _text(text), Block("code", text=command), _facts(*signature))
    return Section("provenance", "Where this comes from, and how to check it", blocks)
