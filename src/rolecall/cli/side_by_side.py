"""Carry out the runs of a comparison in processes of their own, some at a time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from msgspec import convert, json

from rolecall.core.errors import RolecallError
from rolecall.observe.comparison import Entry, Store
from rolecall.observe.measuring import Point
from rolecall.observe.summary import Failure

__all__ = ("EntrantFailed", "run_all")

_LAST_CHARACTERS = 2_000

OnPoint = Callable[[Entry, Point], None]


class EntrantFailed(RolecallError):
    """A run of a comparison has failed; `failure` says how."""

    def __init__(self, entry: Entry, failure: Failure) -> None:
        self.failure = failure
        super().__init__(f"{entry.label}, seed {entry.seed}: {failure.error}")
        self.add_note(failure.traceback)


async def run_all(
    entries: Sequence[Entry], store: Store, jobs: int, on_point: OnPoint, on_done: Callable[[Entry], None]
) -> None:
    """Carry out entries, `jobs` at a time, in order; cancelled, it ends those that run.

    Raises:
        EntrantFailed: one has failed; the others are ended then.
    """
    places = anyio.Semaphore(jobs)

    async def one(entry: Entry) -> None:
        try:
            await _carried_out(entry, store, on_point)
            on_done(entry)
        finally:
            places.release()

    async with anyio.create_task_group() as tasks:
        for entry in entries:
            await places.acquire()
            tasks.start_soon(one, entry)


async def _carried_out(entry: Entry, store: Store, on_point: OnPoint) -> None:
    command = [sys.executable, "-m", "rolecall.cli.entrant", str(store.directory)]
    # A session of its own: Ctrl-C is for this process, which ends the others.
    process = await anyio.open_process(command, stderr=subprocess.PIPE, start_new_session=True)
    try:
        await _followed(process, entry, on_point)
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()


async def _followed(process: Process, entry: Entry, on_point: OnPoint) -> None:
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    said, failure = [""], None

    async def listen() -> None:
        async for text in TextReceiveStream(process.stderr, errors="replace"):  # type: ignore[arg-type]
            said[0] = (said[0] + text)[-_LAST_CHARACTERS:]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await process.stdin.send(json.encode(entry))
        await process.stdin.aclose()
        rest = ""
        async for text in TextReceiveStream(process.stdout):
            *lines, rest = (rest + text).split("\n")
            for kind, what in map(_told, lines):
                if kind == "point":
                    on_point(entry, convert(what, Point))
                else:
                    failure = convert(what, Failure)
        code = await process.wait()
    if failure is None and code:
        error = f"its process ended with code {code}. {said[0].strip()}".strip()
        failure = Failure(status="failed", error=error, error_type="ProcessEnded", exit_code=1)
    if failure is not None:
        raise EntrantFailed(entry, failure)


def _told(line: str) -> tuple[str, Any]:
    kind, what = json.decode(line)
    return kind, what
