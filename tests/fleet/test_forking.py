"""The fork server: processes at once, each of its own, and none left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import psutil
import pytest

from rolecall.core.errors import RolecallError
from rolecall.fleet.forking import ForkServer
from rolecall.fleet.forkserver import Spawn
from rolecall.fleet.output import Output


class Process:
    """A forked process with its output."""

    def __init__(self, server: ForkServer) -> None:
        self.server, self.output, self.pid = server, Output("p"), 0
        self.codes: list[int] = []
        self.over = anyio.Event()

    async def run(self, function: str, config: str = "") -> Process:
        """Fork it."""
        out, err = await self.output.open()
        try:
            order = Spawn("p", f"forked:{function}", config.encode())
            self.pid = await self.server.spawn(order, out, err, self.exited)
        finally:
            os.close(out)
            os.close(err)
        return self

    def exited(self, code: int) -> None:
        self.codes.append(code)
        self.over.set()

    async def end(self) -> int:
        """Wait for its end and its last word; return its exit code."""
        await self.over.wait()
        await self.output.ended()
        [code] = self.codes
        return code


@pytest.fixture(autouse=True)
def _entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


async def test_outputs_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    async with ForkServer() as server:
        said = await Process(server).run("say", "hello\nworld")
        assert await said.end() == 7
        assert capsys.readouterr() == ("p: hello\np: world\n", "p: no newline at the end\n")
        left = await Process(server).run("leave", "5")
        assert await left.end() == 5
        failed = await Process(server).run("fail", "went wrong")
        assert await failed.end() == 1
        assert failed.output.last_words[-1] == "ValueError: went wrong"
        unknown = await Process(server).run("nothing")
        assert await unknown.end() == 1


async def test_processes_are_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    async with ForkServer() as server:
        await server.preload(["json.tool", "no.such.module", "numpy"])
        for process in [await Process(server).run("tell") for _ in range(3)]:
            assert await process.end() == 0
    told = [line.split()[1:] for line in capsys.readouterr().out.splitlines()]
    assert [facts[:3] for facts in told] == [["True", "1", "True"]] * 3
    assert len({facts[3] for facts in told}) == 1  # nothing of the others is open
    assert len({facts[4] for facts in told}) == len({facts[5] for facts in told}) == 3


async def test_a_process_is_ended_with_what_it_has_started(capsys: pytest.CaptureFixture[str]) -> None:
    async with ForkServer() as server:
        process = await Process(server).run("sleep")
        started = await line_of(capsys)
        await server.kill(process.pid + 1, signal.SIGKILL)  # no process of this server's
        await server.kill(process.pid, signal.SIGTERM)  # which it ignores, and its child does not
        await server.kill(process.pid, signal.SIGKILL)
        assert await process.end() == -signal.SIGKILL
        assert gone(started)


async def test_leaving_ends_all(capsys: pytest.CaptureFixture[str]) -> None:
    async with ForkServer() as server:
        process = await Process(server).run("sleep")
        started = await line_of(capsys)
    assert gone(process.pid)
    assert gone(started)
    process.output.close()
    with pytest.raises(RolecallError, match="has ended"):
        await server.preload(["json"])


async def test_a_fork_server_that_is_ended_takes_its_processes_along() -> None:
    async with ForkServer() as server:
        process = await Process(server).run("sleep")
        os.kill(psutil.Process(process.pid).ppid(), signal.SIGKILL)
        await process.over.wait()
        assert process.codes == [-signal.SIGKILL]
        assert gone(process.pid)
        with pytest.raises(RolecallError, match="has ended"):
            await Process(server).run("say")
        process.output.close()


async def line_of(capsys: pytest.CaptureFixture[str]) -> int:
    """Wait for the number that a process prints."""
    with anyio.fail_after(10):
        while not (out := capsys.readouterr().out):  # noqa: ASYNC110
            await anyio.sleep(0.01)
    return int(out.split()[1])


def gone(pid: int) -> bool:
    """Wait until a process has ended, 5 s at most."""
    try:
        psutil.Process(pid).wait(5)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True
