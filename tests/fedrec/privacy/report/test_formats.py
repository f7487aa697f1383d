import json
import re
from html.parser import HTMLParser

import pytest

from fedrec.privacy.report import html, markdown
from fedrec.privacy.report.document import Part, render_json
from fedrec.privacy.report.page import sections
from fedrec.privacy.report.tiles import tiles
from fedrec.privacy.report.words import number
from tests.fedrec.privacy.report.made import facts_of, group_of, sign

VOID = {"meta", "path"}


class Page(HTMLParser):
    """Checks that tags close in order, and keeps the visible text and every attribute."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.seen, self.svg = [], [], [], 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.seen.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.seen).split())


def floats_of(part):
    """Every number with a decimal point among the findings, except the registry's, which no page shows."""
    if isinstance(part, Part):
        return [x for name in type(part).model_fields if name != "registry" for x in floats_of(getattr(part, name))]
    if isinstance(part, dict):
        return [x for value in part.values() for x in floats_of(value)]
    if isinstance(part, tuple):
        return [x for value in part for x in floats_of(value)]
    return [part] if isinstance(part, float) else []


def test_numbers_agree_to_the_last_digit_in_all_three_formats(signed):
    page, text, tool = Page(html.render_html(signed)).words, markdown.render_markdown(signed), render_json(signed)
    visible = text.partition(markdown.BEGIN)[0]
    numbers = floats_of(signed.report.findings)
    assert len(numbers) > 30
    for value in map(number, numbers):
        assert re.search(rf"(?<![\d.]){re.escape(value)}(?![\d])", page), value
        assert re.search(rf"(?<![\d.]){re.escape(value)}(?![\d])", visible), value
        assert re.search(rf"(?<![\d.]){re.escape(value)}(?![\d])", tool), value


def test_the_page_is_well_formed_and_asks_nothing_of_anyone(signed):
    text = html.render_html(signed)
    page = Page(text)
    assert page.open == []
    assert not {name for name, _ in page.attributes} & {"src", "href", "onclick", "onload"}
    assert text.count("<script") == 1
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_markup_from_outside_is_shown_and_never_obeyed(plan, policy, key):
    name = '</script><img src=x onerror="alert(1)">&`|'
    bad = sign(facts_of(plan, policy, (name, (group_of(plan, charges=2, run=name),)), name=name), key)
    page = Page(html.render_html(bad))
    assert page.open == []
    assert name in page.words
    assert not any(attribute == "onerror" for attribute, _ in page.attributes)
    visible = markdown.render_markdown(bad).partition(markdown.BEGIN)[0]
    assert "<img" not in visible.replace("\\<", "")
    assert json.loads(html.embedded(bad))["report"]["facts"]["name"] == name


def test_a_newcomer_finds_four_answers_on_the_first_screen(signed):
    text = Page(html.render_html(signed)).words
    first = text[: text.index("Who must be trusted, and what is released")]
    for question in ("What is protected?", "From whom?", "How much is left?", "What is not protected?"):
        assert question in first
    found = signed.report.findings
    assert f"ε {number(found.headroom.epsilon_left)} of {number(found.headroom.epsilon_limit)}" in first


def test_every_section_that_shows_an_epsilon_says_what_it_is_to_be_read_with(signed):
    for section in sections(signed):
        text = " ".join(
            " ".join([block.text, *block.columns, *(cell for row in block.rows for cell in row)])
            for block in section.blocks
        )
        if re.search(r"[Ee]psilon \d|Epsilon", text) and section.anchor not in {"questions", "audit"}:
            for word in ("delta", "unit", "neighbours", "dp-accounting"):
                assert word in text, section.anchor


@pytest.mark.parametrize("word", ["compliant", "certified", "compliance"])
def test_a_report_claims_no_approval(signed, word):
    for text in (html.render_html(signed), markdown.render_markdown(signed), render_json(signed)):
        assert word not in text.lower()


def test_a_run_without_noise_is_stamped_in_every_format_and_shows_no_epsilon(bare):
    page = Page(html.render_html(bare)).words
    visible = markdown.render_markdown(bare).partition(markdown.BEGIN)[0]
    for text in (page, visible):
        assert "NOT PRIVATE" in text
        assert not re.search(r"[Ee]psilon [\d]|ε [\d]", text)
    assert json.loads(render_json(bare))["report"]["findings"]["guarantee"] is None


def test_the_table_of_clients_is_marked_for_the_operator(signed):
    assert "Client by client operator only" in Page(html.render_html(signed)).words
    assert "## Client by client (operator only)" in markdown.render_markdown(signed)


def test_every_subject_of_the_map_points_to_a_section_that_exists(signed):
    anchors = {section.anchor for section in sections(signed)} | {"verdict"}
    assert {answer.section for answer in signed.report.findings.nist_sp_800_226} <= anchors


def test_the_registry_entry_has_the_fields_of_its_schema(signed, bare):
    deployment = signed.report.findings.registry["deployment"]
    assert set(deployment) == {"product", "dp_flavor", "privacy_loss", "model", "accounting", "implementation"}
    guarantee = signed.report.findings.guarantee
    parameters = deployment["privacy_loss"]["privacy_parameters"]
    assert parameters == {"epsilon": guarantee.epsilon, "delta": guarantee.delta}
    assert bare.report.findings.registry["deployment"]["privacy_loss"]["privacy_parameters"] is None


def test_over_the_policy_is_shown_as_a_warning(plan, policy, key):
    tight = policy.model_copy(update={"max_epsilon": 5.0})
    over = sign(facts_of(plan, tight, ("client-00000", (group_of(plan, charges=20),))), key)
    assert [tile.is_warning for tile in tiles(over.report)] == [False, False, True, False]
    assert 'class="over"' in html.render_html(over)
