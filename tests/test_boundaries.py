"""The rules of the house that a reader can see in the source alone: who imports whom, and what is never called."""

import ast
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SIDES = {
    "fedrec": {"fedrec"},
    "clients": {"fedrec", "clients"},
    "server": {"fedrec", "server"},
    "simulations": {"fedrec", "clients", "server", "simulations"},
}
OURS = set(SIDES)
COMPOSITION_ROOT = ROOT / "fedrec" / "cli"  # the one place in fedrec/ that may see every side
SERIALIZERS_THAT_RUN_CODE = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.load",
    "torch.save",
    "yaml.load",
    "os.system",
    "os.popen",
}
FORBIDDEN_ARGUMENTS = {("trust_remote_code", True), ("shell", True), ("allow_pickle", True), ("weights_only", False)}
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 50


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def files_of(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported_modules(tree: ast.AST) -> set[str]:
    """Dotted names of every absolute import, wherever it sits, ``import_module("x")`` included."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
        elif isinstance(node, ast.Call) and dotted_name(node.func).endswith("import_module"):
            names |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return names


def dotted_name(node: ast.AST) -> str:
    """``a.b.c`` for a chain of names and attributes, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (head := dotted_name(node.value)):
        return f"{head}.{node.attr}"
    return ""


def broken_promises(tree: ast.AST) -> set[str]:
    """Everything in ``tree`` that could run code hidden in a file or an argument."""
    found = {name for name in imported_modules(tree) if name.split(".")[0] in SERIALIZERS_THAT_RUN_CODE}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if (name := dotted_name(node.func)) in FORBIDDEN_CALLS:
            found.add(name)
        for keyword in node.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            if any(keyword.arg == argument and value is banned for argument, banned in FORBIDDEN_ARGUMENTS):
                found.add(f"{keyword.arg}={value}")
    return found


@pytest.mark.parametrize("side", SIDES)
def test_a_side_imports_only_what_it_may_see(side):
    for path in files_of(side):
        if path.is_relative_to(COMPOSITION_ROOT):
            continue
        seen = {name.split(".")[0] for name in imported_modules(tree_of(path))} & OURS
        assert not seen - SIDES[side], f"{path.relative_to(ROOT)} may not import {sorted(seen - SIDES[side])}"


@pytest.mark.parametrize("line", ["import server.app", "from clients import x", "importlib.import_module('server')"])
def test_the_import_rule_sees_every_way_to_import(line):
    assert {name.split(".")[0] for name in imported_modules(ast.parse(line))} & {"server", "clients"}


def test_nothing_shipped_runs_code_hidden_in_a_file():
    for path in files_of(*SIDES, "benchmarks"):
        assert not (found := broken_promises(tree_of(path))), f"{path.relative_to(ROOT)}: {sorted(found)}"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from cloudpickle import loads",
        "torch.load(path)",
        "eval(text)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "subprocess.run(command, shell=True)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_ban_catches(line):
    assert broken_promises(ast.parse(line))


@pytest.mark.parametrize("line", ["model.eval()", "from_pretrained(path, trust_remote_code=False)", "np.load(path)"])
def test_the_ban_lets_harmless_code_pass(line):
    assert not broken_promises(ast.parse(line))


def test_files_and_functions_stay_short_enough_to_read():
    for path in files_of(*SIDES, "benchmarks", "tests"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= MAX_FILE_LINES, f"{path.relative_to(ROOT)} has {lines} lines"
    for path in files_of(*SIDES):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.body[0].lineno + 1  # a command's signature is its list of options
                assert lines <= MAX_FUNCTION_LINES, f"{path.relative_to(ROOT)}: {node.name} has {lines} lines"


def test_every_third_party_import_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], "ray", *extras["ray"], *extras["faiss"]]
    declared = {"".join(c if c.isalnum() or c in "-_" else " " for c in line).split()[0] for line in requirements}
    distributions = packages_distributions()
    for path in files_of(*SIDES):
        for module in {name.split(".")[0] for name in imported_modules(tree_of(path))} - OURS:
            names = {name.lower().replace("_", "-") for name in distributions.get(module, [])}
            assert module in sys.stdlib_module_names or names & declared, (
                f"{path.relative_to(ROOT)} imports {module}, which pyproject.toml does not name"
            )


def test_every_test_file_mirrors_a_source_folder():
    for path in files_of("tests"):
        place = path.parent.relative_to(ROOT / "tests")
        assert (ROOT / place).is_dir(), f"{path.relative_to(ROOT)} mirrors no folder"
