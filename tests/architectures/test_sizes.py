"""Architectures stay small, and the documentation says how small; their references know nothing of them."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from rolecall import architectures

HERE = Path(architectures.__file__).parent
TABLE = Path(__file__).parents[2] / "docs" / "architectures" / "README.md"
LIMITS = {"gossip": 60}
MODULES = sorted(name.replace("-", "_") for name in architectures.CATALOGUE)
BUILDERS = {"app", "allreduce_app", "peers_app", "tree", "Common"}


def lines_of_roles(path: Path) -> int:
    """Count the lines of classes and functions but builders, without docstrings, comments and blank lines."""
    source = path.read_text()
    counted: set[int] = set()
    for node in ast.parse(source).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name not in BUILDERS:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            counted |= set(range(first, (node.end_lineno or first) + 1)) - docstrings(node)
    return of_code(source, counted)


def of_code(source: str, counted: set[int]) -> int:
    lines = source.splitlines()
    return sum(1 for at in counted if lines[at - 1].strip() and not lines[at - 1].lstrip().startswith("#"))


def docstrings(node: ast.AST) -> set[int]:
    found: set[int] = set()
    for part in ast.walk(node):
        if isinstance(part, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(
            part
        ):
            found |= set(range(part.body[0].lineno, (part.body[0].end_lineno or 0) + 1))
    return found


def in_the_table() -> dict[str, int]:
    rows = TABLE.read_text().partition("<!-- sizes -->")[2].split("\n\n")[0]
    return {name: int(lines) for name, lines in re.findall(r"^\| (\w+) \| (\d+) \|", rows, re.MULTILINE)}


@pytest.mark.parametrize("name", sorted(in_the_table()))
def test_the_table_tells_the_lines_there_are(name: str) -> None:
    lines = lines_of_roles(HERE / f"{name}.py")
    assert lines == in_the_table()[name]
    assert lines <= LIMITS.get(name, 150)


def test_every_architecture_is_in_the_table() -> None:
    assert set(MODULES) <= set(in_the_table())


@pytest.mark.parametrize("name", MODULES)
def test_with_its_builder_too_an_architecture_is_read_at_a_sitting(name: str) -> None:
    source = (HERE / f"{name}.py").read_text()
    everything = set(range(1, len(source.splitlines()) + 1))
    assert of_code(source, everything - docstrings(ast.parse(source))) <= 150


@pytest.mark.parametrize("reference", sorted(Path(__file__).parent.glob("serial*.py")), ids=lambda path: path.stem)
def test_a_serial_reference_imports_numpy_and_torch_alone(reference: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(reference.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add("." * node.level + (node.module or "").partition(".")[0])
    assert {"numpy", "torch"} >= imported - set(sys.stdlib_module_names) - {"__future__"}
