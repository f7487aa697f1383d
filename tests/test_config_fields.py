"""A setting that nobody reads is a lie to whoever sets it."""

import ast
from pathlib import Path

import pytest
from pydantic import BaseModel

from fedrec.config import Config

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {
    name: field.annotation
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}
CLASSES = {"Config": "", **{section.__name__: name for name, section in SECTIONS.items()}}
FIELDS = {f"{name}.{field}" for name, section in SECTIONS.items() for field in section.model_fields} | {
    name for name in Config.model_fields if name not in SECTIONS
}


def assignments(node: ast.Assign) -> list[tuple[ast.Name, ast.AST]]:
    """``a = x`` and ``a, b = x, y`` as pairs of a name and its value."""
    pairs = []
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs += zip(target.elts, node.value.elts, strict=False)
        else:
            pairs.append((target, node.value))
    return [(target, value) for target, value in pairs if isinstance(target, ast.Name)]


def fields_read(tree: ast.AST) -> set[str]:
    """Dotted names of the settings read in ``tree``.

    A read is ``anything.section.field``, ``section.field`` where a variable is called like the section,
    or ``variable.field`` where the variable is annotated with, or was assigned from, the section.
    """
    sections_of = {name: {name} for name in SECTIONS} | {"config": {""}}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and isinstance(node.annotation, ast.Name) and node.annotation.id in CLASSES:
            sections_of.setdefault(node.arg, set()).add(CLASSES[node.annotation.id])
        elif isinstance(node, ast.Assign):
            for target, value in assignments(node):
                if isinstance(value, ast.Attribute) and value.attr in SECTIONS:
                    sections_of.setdefault(target.id, set()).add(value.attr)
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        if isinstance(node.value, ast.Attribute):
            sections = {node.value.attr}
        elif isinstance(node.value, ast.Name):
            sections = sections_of.get(node.value.id, set())
        else:
            continue
        found |= {f"{section}.{node.attr}" if section else node.attr for section in sections}
    return found & FIELDS


@pytest.fixture(scope="module")
def read_anywhere():
    files = [path for side in ("fedrec", "clients", "server", "simulations") for path in (ROOT / side).rglob("*.py")]
    return set().union(*(fields_read(ast.parse(path.read_text(encoding="utf-8"))) for path in files))


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_somebody_reads(field, read_anywhere):
    assert field in read_anywhere, f"no code reads the setting {field}; use it or delete it"


@pytest.mark.parametrize(
    "source",
    [
        "config.privacy.clip_norm",
        "self.config.privacy.clip_norm",
        "def f(settings: PrivacyConfig): return settings.clip_norm",
        "chosen = config.privacy\nchosen.clip_norm",
        "plan, chosen = make(), config.privacy\nchosen.clip_norm",
    ],
)
def test_the_search_finds_a_read(source):
    assert fields_read(ast.parse(source)) == {"privacy.clip_norm"}


@pytest.mark.parametrize("source", ["plan.clip_norm", "clip_norm = 1", "adapter.kind.clip_norm", "config.clip_norm"])
def test_the_search_is_not_fooled_by_the_same_name_elsewhere(source):
    assert fields_read(ast.parse(source)) <= {"adapter.kind"}
