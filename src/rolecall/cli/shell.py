"""`rolecall shell`: the commands that look after runs and nodes, and calls as Python, at a prompt."""

from __future__ import annotations

import ast
import cmd
import contextlib
import inspect
import shlex
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType
from typing import TYPE_CHECKING, Any, TextIO

import typer

from rolecall.cli.access import Certs, SecretFile
from rolecall.cli.options import Debug
from rolecall.cli.places import At, Places, RunOption

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

__all__ = ("Shell", "shell")

_COMMANDS = ("ps", "status", "logs", "call", "assign", "pause", "resume", "relate", "stop")
_WELCOME = "rolecall shell: help or ? lists the commands, Tab completes, Ctrl-D leaves.\n"


def shell(
    run: RunOption = None,
    at: At = None,
    certs: Certs = None,
    secret_file: SecretFile = None,
    debug: Debug = False,
) -> None:
    """Look after runs and nodes at a prompt.

    The commands are those of rolecall itself: ps, status, logs, call, assign,
    pause, resume, relate, stop. A line that begins with await, or with anything that is no command,
    is Python: await call("server/counter", "add", numbers=[1, 2])

    Example:  rolecall shell --run fedavg-4711
    """
    from rolecall.cli.failures import reported

    with reported(debug=debug):
        from anyio.from_thread import start_blocking_portal

        places = Places(at, certs, secret_file, run)
        places.all()  # an unknown --run is told at once
        with start_blocking_portal() as portal:
            Shell(portal, places, sys.stdout, debug=debug).cmdloop_until_left()


class Shell(cmd.Cmd):
    """A prompt; each line is a command of `rolecall`, or Python that may await.

    Python sees `call`, `status`, `assign`, `stop` and what it assigns; `_` is the last result.
    """

    prompt = "rolecall> "
    intro = _WELCOME

    def __init__(
        self, portal: BlockingPortal, places: Places, out: TextIO, *, debug: bool = False, stdin: TextIO | None = None
    ) -> None:
        super().__init__(stdin=stdin, stdout=out)
        self.use_rawinput = stdin is None
        self._portal, self._places, self._out, self._debug = portal, places, out, debug
        self._roles: list[str] = []
        self._names: dict[str, Any] = {
            "call": self._python_call,
            "status": self._python_status,
            "stop": self._python_stop,
            "assign": self._python_assign,
        }

    def cmdloop_until_left(self) -> None:
        """Read and do line after line; Ctrl-C ends what a line does, and not the shell."""
        while True:
            try:
                self.cmdloop()
                return
            except KeyboardInterrupt:
                self._out.write("\n")
                self.intro = ""

    # ------------------------------------------------------------------------------------------ lines

    def onecmd(self, line: str) -> bool:
        """Do what a line says; return whether to leave."""
        word = line.split(maxsplit=1)[0] if line.strip() else ""
        if word == "EOF":
            self._out.write("\n")
            return True
        if word in ("exit", "quit"):
            return True
        with self._told():
            if word in _COMMANDS:
                self._command(line)
            elif word in ("help", "?") or line.startswith("?"):
                self._help(line.lstrip("?").removeprefix("help").strip())
            elif word:
                self._python(line)
        return False

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        from rolecall.cli.failures import failure_of, tell

        try:
            yield
        except typer.Exit:
            pass  # the command has told why
        except Exception as error:
            tell(failure_of(error), debug=self._debug)

    def _command(self, line: str) -> None:
        """Do a command as the command line does, with the options that the shell was started with."""
        from rolecall.cli.commands import main

        words = shlex.split(line)
        given = [] if words[0] == "ps" else self._places.options()
        main([words[0], *given, *words[1:]])

    def _help(self, about: str) -> None:
        from rolecall.cli.commands import main

        if about in _COMMANDS:
            main([about, "--help"])
            return
        self._out.write(
            f"Commands: {', '.join(_COMMANDS)}; help COMMAND has more. exit or Ctrl-D leaves.\n"
            'Python: await call("NODE/ROLE", "channel", name=value); await status("NODE"); _ is the last result.\n'
        )

    # ------------------------------------------------------------------------------------------ Python

    def _python(self, line: str) -> None:
        try:
            code = _compiled(line)
        except SyntaxError as error:
            self._out.write(f"This is no command, and no Python either: {error.msg}.\n")
            return
        try:
            result = self._portal.call(_evaluated, code, self._names)
        except Exception as error:
            from rolecall.core.errors import RolecallError

            if isinstance(error, RolecallError):
                raise
            self._out.write("".join(traceback.format_exception_only(error)))
            return
        if result is not None:
            self._names["_"] = result
            self._out.write(f"{result!r}\n")

    async def _python_call(self, role: str, channel: str, /, *, timeout_s: float = 0, **arguments: Any) -> Any:
        async with self._places.of_role(role).connected() as client:
            return await client.call(role, channel, arguments, deadline_s=timeout_s)

    async def _python_status(self, node: str) -> Any:
        async with self._places.of_node(node).connected() as client:
            return await client.status(node)

    async def _python_stop(self, roles: str) -> list[str]:
        async with self._places.of_role(roles).connected() as client:
            return [str(role) for role in await client.stop(roles, reason="rolecall shell")]

    async def _python_assign(
        self, node: str, name: str, role: Mapping[str, Any], **relationships: Sequence[str]
    ) -> str:
        async with self._places.of_node(node).connected() as client:
            return await client.assign(name, role, node=node, relationships=relationships)

    # ------------------------------------------------------------------------------------------ completion

    def completenames(self, text: str, *ignored: Any) -> list[str]:
        """Return the commands that begin with a text."""
        return [name for name in (*_COMMANDS, "help", "exit", "await") if name.startswith(text)]

    def completedefault(self, text: str, line: str, begin: int, end: int) -> list[str]:
        """Return the nodes, roles, runs or options that may stand there."""
        word = line[: line.index(" ")] if " " in line else line
        if word not in _COMMANDS:
            return []
        if begin <= len(word) + 1:
            self._roles = self._portal.call(self._known)
        return [known for known in self._roles if known.startswith(text)]

    async def _known(self) -> list[str]:
        """Return the names of runs, nodes and roles."""
        from rolecall.core.errors import RolecallError

        names: dict[str, None] = {}
        for place in self._places.all():
            names[place.id] = None
            with contextlib.suppress(RolecallError):
                async with place.connected() as client:
                    for node in client.nodes:
                        names[node] = None
                        names.update((role.role, None) for role in (await client.status(node)).roles)
        return list(names)


def _compiled(line: str) -> CodeType:
    """Return a line as code, an expression where it is one; it may await."""
    try:
        return _code(line, "eval")
    except SyntaxError:
        return _code(line, "exec")


def _code(line: str, mode: str) -> CodeType:
    code: CodeType = compile(line, "<shell>", mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return code


async def _evaluated(code: CodeType, names: dict[str, Any]) -> Any:
    result = eval(code, names)  # noqa: S307 - what the user of the shell types, as at any prompt
    return await result if inspect.isawaitable(result) else result
