"""What the documents say of the repository is true of it."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@cache
def names_of_tests_in(path: Path) -> frozenset[str]:
    """Names of the tests in a file; none when there is no such file."""
    if not path.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))


def missing_tests(document: Path) -> list[str]:
    """What a document names as a test, ``tests/file.py::name`` in backticks, and is none."""
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", document.read_text(encoding="utf-8")))
    return sorted(f"{path}::{name}" for path, name in named if name not in names_of_tests_in(ROOT / path))


def test_each_test_that_security_md_names_exists():
    assert missing_tests(ROOT / "SECURITY.md") == []


def test_every_guarantee_names_a_test():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    section = text.split("## What is guaranteed")[1].split("\n## ")[0]
    claims = [line for line in section.splitlines() if line.startswith("| ")][1:]
    claims = [line for line in claims if not line.startswith("| ---")]
    assert len(claims) >= 15
    assert all("::test_" in line for line in claims)


def test_the_supported_version_is_the_one_that_is_built():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    supported = re.findall(r"^\| (\d+\.\d+) \| yes \|$", text, flags=re.MULTILINE)
    assert supported == [".".join(PROJECT["version"].split(".")[:2])]


def test_the_package_knows_its_version():
    init = (ROOT / "fedrec" / "__init__.py").read_text(encoding="utf-8")
    assert f'__version__ = "{PROJECT["version"]}"' in init


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not missing, f"{document.name} links to {missing}"


def test_the_readme_tree_names_every_folder_and_no_other():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.split("```\nfedrec/ ")[1].split("```")[0]
    named = set(re.findall(r"^  ([a-z]+)/", tree, flags=re.MULTILINE))
    assert named == {path.name for path in (ROOT / "fedrec").iterdir() if (path / "__init__.py").is_file()}
    for side in re.findall(r"^([a-z]+)/", tree, flags=re.MULTILINE):
        assert (ROOT / side).is_dir(), side


def test_every_dependency_has_its_reason():
    reasons = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8").split("## Dependencies")[1]
    for requirement in PROJECT["dependencies"]:
        name = re.match(r"[A-Za-z0-9_-]+", requirement)[0]
        assert re.search(rf"^\|[^|]*\b{name}\b", reasons, flags=re.MULTILINE), name
