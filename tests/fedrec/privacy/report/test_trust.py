"""A report says exactly who must be trusted, and never more than its trust model bears."""

from dataclasses import replace

import pytest

from fedrec.errors import PrivacyError
from fedrec.privacy.policy import Policy
from fedrec.privacy.report import html, markdown
from fedrec.privacy.report import trust as report_trust
from fedrec.privacy.report.findings import findings_of
from fedrec.privacy.report.tiles import tiles
from tests.fedrec.privacy.report.made import facts_of, group_of, sign

NOTHING = "nothing: what it sees is noised already"
SAYS = {
    "local": ("Everyone but the client itself", "nobody else needs to be trusted for it", "leaves the client, and"),
    "distributed": (
        "Who sees nothing but sums",
        "sum of at least 9 clients' updates",
        "One sum of clients' updates is",
    ),
    "central": ("Everyone but client and server", "sees each client's exact clipped sum", "One noised sum of clients'"),
}
TRUSTED = {
    "local": {"the server": NOTHING, "the other clients": NOTHING},
    "distributed": {
        "the server": "to look at nothing but sums of as many updates as share the noise",
        "the other clients": "to add their shares of the noise: where t of m do not, sigma·sqrt((m - t)/m) is left",
    },
    "central": {"the server": "all it sees, and to add the noise", "the other clients": NOTHING},
}


@pytest.fixture(params=SAYS)
def trust(request):
    return request.param


@pytest.fixture
def facts(plan, trust):
    other = replace(plan, trust=trust, noise_sharers=9 if trust == "distributed" else 1)
    policy = Policy.for_plan(other, base="a" * 64, code="b" * 64, server_key="c" * 64, trust=trust)
    return facts_of(other, policy, ("client-00000", (group_of(other, charges=12),)))


def test_who_must_be_trusted_is_said_by_every_model_in_its_own_words(facts, trust):
    trusted = {actor.who: actor.trusted_for for actor in findings_of(facts).trust}
    assert TRUSTED[trust].items() <= trusted.items()
    assert trusted["whoever gets the published ranker"] == NOTHING


def test_page_and_text_say_it_on_the_first_screen_and_beside_the_actors(facts, key, trust):
    signed = sign(facts, key)
    page, text = html.render_html(signed).replace("&#39;", "'"), markdown.render_markdown(signed)
    for words in SAYS[trust]:
        assert words in page
        assert words in text
    (warned,) = [tile.is_warning for tile in tiles(signed.report) if tile.question == "From whom?"]
    assert warned == (trust != "local")
    assert ("simulation only" in page) == (trust != "local")
    assert ("on the client, before anything leaves it" in page) == (trust == "local")


def test_a_ledgers_report_knows_its_trust_from_the_policy_alone(facts, trust):
    alone = facts.model_copy(update={"source": "ledger", "plan": None, "digests": {"policy": facts.digests["policy"]}})
    assert findings_of(alone).trust == findings_of(facts).trust
    assert report_trust.relied_on(alone).startswith(f"Trust: {trust}.")


def test_epsilon_is_the_same_under_every_model(facts, plan, policy):
    local = facts_of(plan, policy, ("client-00000", (group_of(plan, charges=12),)))
    assert findings_of(facts).guarantee == findings_of(local).guarantee
    assert findings_of(facts).verdict.headline == findings_of(local).verdict.headline


def test_a_customer_of_several_clients_spends_more_where_one_noise_covers_all(facts, plan, policy, trust):
    local = facts_of(plan, policy, ("client-00000", (group_of(plan, charges=12),)))
    ours, theirs = findings_of(facts).epsilon_for_person_at, findings_of(local).epsilon_for_person_at
    assert ours["2"] > 1.5 * theirs["2"] if trust != "local" else ours == theirs


def test_a_registry_entry_names_the_model(facts, trust):
    model = findings_of(facts).registry["deployment"]["model"]
    assert model["model_name"] == trust.capitalize()


def test_a_plan_of_another_trust_than_the_policys_makes_no_report(plan, policy):
    central = replace(plan, trust="central")
    with pytest.raises(PrivacyError, match="the plan: expected trust=local, which the policy allows"):
        findings_of(facts_of(central, policy, ("client-00000", (group_of(central, charges=12),))))
