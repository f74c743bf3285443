"""Every code block of README.md and docs/ runs.

The blocks of one page run in order, in a directory of their own that shows the project's `examples/`:

* `python` blocks share one namespace; `await` may stand at top level.
* `yaml` blocks that are whole applications (with `nodes:` and `roles:`) are loaded, expanded and checked.
* `console` blocks: each `$ rolecall ...` line runs; the output shown under it must match, where `...` stands
  for anything; where none is shown, any will do. Lines of other programs are not run.

An HTML comment on the line before a block directs it:

* `<!-- not run: WHY -->`
* `<!-- file: NAME -->`: the block is also saved under that name; a Python file is imported, not executed.
* `<!-- exits: CODE -->`: what each command of a console block exits with, when it is not 0.
* `<!-- raises: ErrorName -->`
"""

from __future__ import annotations
import __future__

import ast
import asyncio
import doctest
import importlib
import inspect
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if page.exists()]
DIRECTIVES = {"not run", "file", "exits", "raises"}
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*$")
DIRECTIVE = re.compile(r"^ *<!-- *(?P<name>[a-z ]+?) *: *(?P<value>.*?) *-->\s*$")
MATCHING = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass
class Block:
    """A fenced block: its language, its text and the line that starts on, and what comments above it say."""

    language: str
    text: str
    line: int
    directives: dict[str, str] = field(default_factory=dict)


def read_blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a Markdown page."""
    lines = page.splitlines()
    at = 0
    while at < len(lines):
        fence = FENCE.match(lines[at])
        if fence is None:
            at += 1
            continue
        indent, start = fence["indent"], at + 1
        end = next((n for n in range(start, len(lines)) if lines[n].strip() == "```"), len(lines))
        text = "".join(line.removeprefix(indent) + "\n" for line in lines[start:end])
        yield Block(fence["language"], text, start + 1, directives_above(lines, at))
        at = end + 1


def directives_above(lines: list[str], fence: int) -> dict[str, str]:
    """Return what the comments directly above a fence say."""
    found: dict[str, str] = {}
    for line in reversed(lines[:fence]):
        match = DIRECTIVE.match(line)
        if match is None:
            break
        if match["name"] not in DIRECTIVES or not match["value"]:
            known = ", ".join(sorted(DIRECTIVES))
            raise ValueError(f"{line.strip()}: not a directive with a value ({known})")
        found[match["name"]] = match["value"]
    return found


class Page:
    """A page being run: its namespace, its directory, its event loop."""

    def __init__(self, path: Path, directory: Path, runner: asyncio.Runner) -> None:
        self.path, self.directory, self.runner = path, directory, runner
        self.module = ModuleType(f"page_{re.sub(r'[^0-9a-z]', '_', path.stem.lower())}")
        self.future_flags = 0

    def run(self, block: Block) -> None:
        """Run one block as its language and its directives say."""
        if "not run" in block.directives:
            return
        if name := block.directives.get("file"):
            (self.directory / name).write_text(block.text)
        if block.language == "python":
            self._run_python(block)
        elif block.language in ("yaml", "yml"):
            self._check_application(block)
        elif block.language == "console":
            for command, output in commands(block.text):
                self._run_command(command, output, block)

    def _run_python(self, block: Block) -> None:
        expected = block.directives.get("raises")
        if expected is None:
            self._execute(block)
            return
        with pytest.raises(Exception) as raised:
            self._execute(block)
        names = {cls.__name__ for cls in type(raised.value).__mro__}
        assert expected.rpartition(".")[2] in names, f"{self._at(block)} raised {raised.value!r}"

    def _execute(self, block: Block) -> None:
        name = block.directives.get("file", "")
        if name.endswith(".py"):
            importlib.invalidate_caches()
            module = importlib.import_module(name.removesuffix(".py"))
            public = {key: value for key, value in vars(module).items() if not key.startswith("__")}
            self.module.__dict__.update(public)
            return
        source = "\n" * (block.line - 1) + block.text  # so that tracebacks name the page's own lines
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | self.future_flags
        code = compile(source, str(self.path), "exec", flags=flags, dont_inherit=True)
        self.future_flags |= code.co_flags & __future__.annotations.compiler_flag
        result = eval(code, self.module.__dict__)
        if inspect.iscoroutine(result):
            self.runner.run(result)

    def _check_application(self, block: Block) -> None:
        content = yaml.safe_load(block.text)
        if not isinstance(content, dict) or not {"nodes", "roles"} <= content.keys():
            return
        import rolecall as rc

        path = self.directory / block.directives.get("file", f"application_line_{block.line}.yaml")
        path.write_text(block.text)
        application = rc.App.load(path)
        application.expanded()
        application.check()

    def _run_command(self, command: str, output: str, block: Block) -> None:
        program, *arguments = shlex.split(command)
        if program != "rolecall":
            return
        from typer.testing import CliRunner

        from rolecall.cli import app

        done = CliRunner().invoke(app, arguments)
        at = f"{self._at(block)} `{command}`"
        expected_exit = int(block.directives.get("exits", "0"))
        if done.exit_code != expected_exit:
            pytest.fail(f"{at} exited with {done.exit_code}:\n{done.output}{done.exception or ''}")
        if output and not doctest.OutputChecker().check_output(output, done.output, MATCHING):
            pytest.fail(f"{at} printed:\n{done.output}\nbut the page says:\n{output}")

    def _at(self, block: Block) -> str:
        return f"{self.path}:{block.line}:"


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield each `$ command` with the output shown under it; a backslash continues a line."""
    joined = text.replace("\\\n", " ")
    for part in re.split(r"^\$ ", joined, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        if command.strip():
            yield command.strip(), output.rstrip("\n") + "\n" if output.strip() else ""


@pytest.fixture
def surrounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand in a new directory that shows the examples; forget afterwards what was imported from there."""
    if (ROOT / "examples").exists():
        (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if name not in before and str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def run_page(path: Path, text: str, directory: Path) -> None:
    """Run all blocks of a page in order."""
    with asyncio.Runner() as runner:
        page = Page(path, directory, runner)
        sys.modules[page.module.__name__] = page.module
        try:
            for block in read_blocks(text):
                page.run(block)
        finally:
            del sys.modules[page.module.__name__]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_blocks_run(page: Path, surrounding: Path, reaping: None) -> None:
    run_page(page, page.read_text(), surrounding)


# ------------------------------------------------------------------------------- the runner of pages, itself


def run_text(surrounding: Path, text: str) -> None:
    run_page(surrounding / "sample.md", text, surrounding)


def test_blocks_share_a_namespace_and_may_await(surrounding: Path) -> None:
    run_text(
        surrounding,
        "```python\nimport asyncio\nasync def two():\n    await asyncio.sleep(0)\n    return 2\n```\n"
        "prose\n```python\nassert await two() == 2\n```\n",
    )


def test_a_wrong_block_fails_at_its_line(surrounding: Path) -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        run_text(surrounding, "a\nb\n```python\nx = 1\nx / 0\n```\n")
    assert raised.traceback[-1].lineno + 1 == 5


def test_a_block_not_run_says_why(surrounding: Path) -> None:
    run_text(surrounding, "<!-- not run: needs a cluster -->\n```python\n1 / 0\n```\n")
    with pytest.raises(ValueError, match="not a directive with a value"):
        run_text(surrounding, "<!-- not run: -->\n```python\n1 / 0\n```\n")


def test_a_block_can_be_a_module_of_the_page(surrounding: Path) -> None:
    run_text(
        surrounding,
        "<!-- file: my_roles.py -->\n```python\nclass Mine: ...\n```\n"
        "```python\nimport my_roles\nassert my_roles.Mine is Mine\n```\n",
    )


def test_a_block_that_should_raise_must(surrounding: Path) -> None:
    run_text(surrounding, "<!-- raises: LookupError -->\n```python\n{}['x']\n```\n")
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        run_text(surrounding, "<!-- raises: KeyError -->\n```python\n1\n```\n")


def test_commands_and_their_output() -> None:
    text = "$ rolecall run app.yaml \\\n    --seed 7\nround 1\n...\n$ ls\n"
    assert list(commands(text)) == [("rolecall run app.yaml      --seed 7", "round 1\n...\n"), ("ls", "")]
