"""One self-contained page that says what the run says, and stamps a run that protects nobody."""

import json
import re
from html.parser import HTMLParser

import pytest

from fedrec.errors import RunError
from fedrec.report.page import build_report
from fedrec.report.words import STAMP
from tests.fedrec.report.conftest import with_news

HOSTILE = "<script>alert('x')</script>"


VOID = {"meta", "br", "path", "use", "rect", "link", "img"}


class Reader(HTMLParser):
    """Collects tags, attributes and visible text, and checks that every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._open = [], [], []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.text.append(data)


def page_of(run, folder):
    return build_report(*run, folder=folder)[0].read_text(encoding="utf-8")


def words_of(page):
    return " ".join(" ".join(Reader(page).text).split())


def test_the_verdict_comes_first(run, tmp_path):
    words = words_of(page_of(run, tmp_path))
    assert words.index("Federation helped") < words.index("Guarantee") < words.index("Product text, untrained")


def test_the_page_is_well_formed_and_asks_nothing_of_the_network(run, tmp_path):
    page = page_of(run, tmp_path)
    for tag, attributes in Reader(page).tags:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed"}
        links = [attributes.get(name) or "" for name in ("src", "href", "xlink:href", "action")]
        assert all(link.startswith("#") or not link for link in links)
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert re.search(r"url\((?!#)", page) is None


def test_the_privacy_statement_and_all_it_needs_are_there(run, tmp_path):
    words = words_of(page_of(run, tmp_path))
    for part in (run[2]["statement"], "7.9994, 1e-5", "person at a merchant", "add or remove one person",
                 "dp-accounting 0.6.0 PLD", "1.013", "2 merchants 12.31"):  # fmt: skip
        assert part in words
    assert "NOT PRIVATE" not in words.split("What is not covered")[1]


def test_every_limit_client_version_rule_and_setting_is_shown(run, tmp_path):
    words = words_of(page_of(run, tmp_path))
    context = run[2]
    wanted = [*context["limits"], *(client["name"] for client in context["clients"]), *run[0]["versions"].values()]
    wanted += [rule["description"] for rule in context["data"]["rules"]]
    wanted += [context["command"], "privacy.epsilon = 8.0", "federation.rounds = 30", "E_SCHEMA × 1"]
    for part in wanted:
        assert part in words


def test_every_figure_of_the_table_is_shown(run, tmp_path):
    words = words_of(page_of(run, tmp_path))
    for values in run[0]["metrics"].values():
        for value in values.values():
            assert f"{value:.4f}" in words


def test_a_run_without_noise_is_stamped_wherever_one_looks(open_run, tmp_path):
    html, document = build_report(*open_run, folder=tmp_path)
    page = html.read_text(encoding="utf-8")
    assert re.search(r"<title>NOT PRIVATE", page)
    words = words_of(page)
    assert re.search(r'<body>\s*<p class="stamp"[^>]*>NOT PRIVATE', page)  # a banner, before the verdict
    after = words.split("Federation helped", 2)[2]
    for section in ("Federated, as deployed (NOT PRIVATE)", "NOT PRIVATE. No noise was added"):
        assert section in after
    assert words.endswith(STAMP)
    assert "ε" not in words
    assert json.loads(document.read_text(encoding="utf-8"))["stamp"] == STAMP


def test_a_private_run_wears_no_stamp(run, tmp_path):
    html, document = build_report(*run, folder=tmp_path)
    assert 'class="stamp"' not in html.read_text(encoding="utf-8")
    assert json.loads(document.read_text(encoding="utf-8"))["stamp"] is None


def test_what_the_data_says_is_escaped(run, tmp_path):
    context = run[2]
    context["clients"][0]["name"] = context["data"]["source"] = context["limits"][0] = HOSTILE
    context["command"] = context["statement"] = HOSTILE
    context["config"] = {"data": {"events": HOSTILE}}
    run[1][3]["quarantined"], run[1][3]["reasons"] = 1, {HOSTILE: 1}
    page = page_of(run, tmp_path)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 7


def test_the_json_holds_every_input_and_the_verdict(run, tmp_path):
    document = json.loads(build_report(*run, folder=tmp_path)[1].read_text(encoding="utf-8"))
    assert document["summary"] == run[0]
    assert document["rounds"] == run[1]
    assert document["context"] == json.loads(json.dumps(run[2]))
    assert document["verdict"]["outcome"] == "better"


def test_pictures_have_a_text_that_stands_for_them_and_tables_have_headers(run, tmp_path):
    tags = Reader(page_of(run, tmp_path)).tags
    pictures = [attributes for tag, attributes in tags if attributes.get("role") == "img"]
    assert len(pictures) == 4
    assert all(len(picture["aria-label"]) > 40 for picture in pictures)
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")
    assert ("html", {"lang": "en"}) in tags


def test_a_run_with_nothing_to_draw_still_has_a_page(run, tmp_path):
    summary, _, context = run
    for client in context["clients"]:
        client["local_only"] = None
    assert "<svg" not in page_of((summary, [], context), tmp_path)


def test_the_most_helped_merchant_is_listed_first_and_the_unmeasured_last(run, tmp_path):
    clients = run[2]["clients"]
    clients[7].update(local_only=0.1, federated=0.5)
    clients[9].update(local_only=None)
    names = re.findall(r'<th scope="row">(merchant-\d+)</th>', page_of(run, tmp_path))
    assert (names[0], names[-1], len(names)) == ("merchant-07", "merchant-09", 50)


def test_a_folder_that_cannot_be_written_is_named(run, tmp_path):
    with pytest.raises(RunError, match=re.escape(str(tmp_path / "absent" / "report.html"))):
        build_report(*run, folder=tmp_path / "absent")


def test_nothing_is_written_when_an_input_does_not_fit(run, tmp_path):
    del run[0]["seed"]
    with pytest.raises(RunError, match="seed"):
        build_report(*run, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_who_gains_is_shown_for_all_merchants_and_by_size(run, tmp_path):
    words = words_of(page_of(run, tmp_path))
    assert "Over being alone 50 72% 28% +0.0045 +0.0051 -0.0105" in words
    assert "Over the public base 50 82% 18% +0.0186 +0.0192 +0.0036" in words
    assert "Over being alone, 9 to 31 people 17 88% 12% +0.0081" in words


def test_merchants_all_alike_in_size_are_not_drawn_by_size(run, tmp_path):
    assert "Gain over being alone, by size" in page_of(run, tmp_path)
    for client in run[2]["clients"]:
        client["people"] = 74
    assert "Gain over being alone, by size" not in page_of(run, tmp_path)


def test_new_products_and_merchants_have_a_table_only_where_there_are_any(run, tmp_path):
    assert "New products, new merchants" not in page_of(run, tmp_path)
    with_news(run[0])
    words = words_of(page_of(run, tmp_path))
    assert "Federated, as deployed 0.0700 0.1459" in words
    assert "Product text, untrained 0.0300 – – –" in words
    assert "10 merchants with 743 people took no part." in words
    run[0]["held_out"] = None
    assert "Federated, as deployed 0.0700 Privacy" in words_of(page_of(run, tmp_path))
