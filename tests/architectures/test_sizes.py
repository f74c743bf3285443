"""Architectures stay small, and the documentation says how small."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from rolecall import architectures

HERE = Path(architectures.__file__).parent
TABLE = Path(__file__).parents[2] / "docs" / "architectures" / "README.md"
LIMITS = {"gossip": 60}
BUILDERS = {"app", "allreduce_app", "peers_app", "tree", "Common"}


def lines_of_roles(path: Path) -> int:
    """Count the lines of classes and functions but builders, without docstrings, comments and blank lines."""
    source = path.read_text()
    counted: set[int] = set()
    for node in ast.parse(source).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name not in BUILDERS:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            counted |= set(range(first, (node.end_lineno or first) + 1)) - docstrings(node)
    lines = source.splitlines()
    return sum(1 for at in counted if lines[at - 1].strip() and not lines[at - 1].lstrip().startswith("#"))


def docstrings(node: ast.AST) -> set[int]:
    found: set[int] = set()
    for part in ast.walk(node):
        if isinstance(part, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(part):
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
    missing = {name.replace("-", "_") for name in architectures.CATALOGUE} - set(in_the_table())
    assert not missing
