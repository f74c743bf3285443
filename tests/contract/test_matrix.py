"""The fault matrix: every kind of frame, and what goes wrong at the very moment that one of them is on its way.

Each scenario has some frames of a kind sent between `a`, which asks, and `b`. What cuts, delays and pauses do to a
frame must not be seen, but by deadlines; crashes end what is under way, and say so, and leave nothing behind.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple, get_args

import anyio
import pytest

import rolecall as rc
from rolecall.sim.faults import Crash, Cut, Pause
from rolecall.sim.passing import Passing
from rolecall.wire import frames as f

from .contract_app import running
from .contract_roles import LEDGER, Caller, Note

DEADLINE_S = 0.5
LATER_S = 0.01
"""From the arrival of a frame to a crash after its effect."""


class Seen:
    """What a scenario has come to, in words."""

    def __init__(self) -> None:
        self.words: list[str] = []

    async def keep(self, work: Awaitable[Any]) -> None:
        """Keep how something ends."""
        try:
            result = await work
            self.words.append("ok" if type(result) is int or result is None else str(result))
        except rc.RoleLost as error:
            self.words.append(f"lost({error.effect})")
        except (rc.RolecallError, LookupError) as error:
            self.words.append(type(error).__name__)

    def __str__(self) -> str:
        fates = [each.fate for each in LEDGER.handlings]
        return " ".join([*_counted(sorted(self.words)), "|", *_counted(sorted(fates))])


def _counted(words: list[str]) -> list[str]:
    """Return words with how often there are, those that are there once as they are."""
    return [word if many == 1 else f"{many} {word}" for word, many in Counter(words).items()]


Scenario = Callable[[Seen, Caller], Awaitable[None]]


async def calling(seen: Seen, me: Caller) -> None:
    async with anyio.create_task_group() as calls:
        calls.start_soon(seen.keep, _until(DEADLINE_S, me.called.many("a", 1, 0.05)))
        calls.start_soon(seen.keep, me.called.many("a", 2, 0.05))


async def failing(seen: Seen, me: Caller) -> None:
    await seen.keep(_until(DEADLINE_S, me.called.fail("a", 1)))


async def leaving(seen: Seen, me: Caller) -> None:
    with anyio.move_on_after(0.1):
        await seen.keep(me.called.many("a", 1, 30.0))
    seen.words.append("left")


async def crowding(seen: Seen, me: Caller) -> None:
    async with anyio.create_task_group() as calls:
        for n in range(6):
            calls.start_soon(seen.keep, me.called.waits("a", n, 0.02))


async def training(seen: Seen, me: Caller) -> None:
    await seen.keep(_reports(me))


async def _reports(me: Caller) -> str:
    handle = await me.called.train.start("a", 1, 0.05)
    reports = [report async for report in handle]
    assert await handle == 1
    return f"reports{reports}"


async def reading(seen: Seen, me: Caller) -> None:
    await seen.keep(_items(me))


async def _items(me: Caller) -> str:
    items = [item async for item in me.called.count("a", 1, 40)]
    return "all items" if items == list(range(40)) else f"items{items}"


async def putting(seen: Seen, me: Caller) -> None:
    await seen.keep(me.called.notes.put(Note("a", 1)))


async def listening(seen: Seen, me: Caller) -> None:
    heard: list[int] = []
    with anyio.move_on_after(4):
        async with me.peers.subscribe(Caller.told, capacity=4) as events:
            while len(heard) < 20:
                _, event = await events.take()
                heard.append(event.n)
    gaps = any(after != before + 1 for before, after in itertools.pairwise(heard))
    seen.words.append(f"heard({'all' if len(heard) == 20 else 'some'}{', gaps' if gaps else ''})")


async def telling(me: Caller) -> None:
    await anyio.sleep(1.5)
    for n in range(20):
        await me.told.emit(Note("b", n))


async def waiting(seen: Seen, me: Caller) -> None:
    for n in range(8):
        await anyio.sleep(0.25)
        await seen.keep(_asked(me, n))


async def _asked(me: Caller, n: int) -> int:
    return await me.called.many("a", n, 0.0)


async def parting(seen: Seen, me: Caller) -> None:
    await seen.keep(me.called.many("a", 1, 5.0))


async def _until(deadline_s: float, work: Awaitable[Any]) -> Any:
    with rc.deadline(deadline_s):
        return await work


SCENARIOS: dict[type, Scenario] = {
    f.Call: calling,
    f.Reply: calling,
    f.Failed: failing,
    f.Cancel: leaving,
    f.Cancelled: leaving,
    f.Full: crowding,
    f.Ready: crowding,
    f.Admitted: training,
    f.Progress: training,
    f.Item: reading,
    f.Credit: reading,
    f.Put: putting,
    f.Subscribe: listening,
    f.Subscribed: listening,
    f.Unsubscribe: listening,
    f.Event: listening,
    f.EventCredit: listening,
    f.Heartbeat: waiting,
    f.HeartbeatReply: waiting,
    f.Goodbye: parting,
}
NEVER_SENT = {f.Ended}
"""The runtime ends a stream with `Reply`."""

# ------------------------------------------------------------------------------------------ what goes wrong

FAULTS = ("cut before", "cut after", "delayed", "slow", "peer gone before", "peer gone after", "sender gone after")


def inject(sim: Any, fault: str, passing: Passing) -> None:
    """Have something go wrong with a frame that is being sent, or has arrived."""
    src, dst = passing.src, passing.dst
    match fault:
        case "cut before" | "cut after":
            sim.now(Cut(src, dst, for_s=0.3))
        case "delayed":
            sim.now(Cut(src, dst, for_s=1.0, both=False, how="silence"))
        case "slow":
            sim.now(Pause(dst, for_s=0.3))
        case "peer gone before":
            sim.now(Crash(dst))
        case "peer gone after" | "sender gone after":
            gone = dst if fault == "peer gone after" else src
            sim.world.loop.at(sim.world.loop.now_s() + LATER_S, None, sim.now, Crash(gone))


async def outcome(kind: type, fault: str | None) -> str:
    """Run the scenario of a kind of frame, with a fault for the first of these frames."""
    seen, met = Seen(), list[Passing]()

    def watch(passing: Passing) -> None:
        wanted = "arrived" if fault in ("cut after", "peer gone after", "sender gone after") else "sent"
        if not met and type(passing.frame) is kind and passing.moment == wanted:
            met.append(passing)
            if fault is not None:
                inject(sim, fault, passing)

    scripts: dict[str, Any] = {"a": partial(SCENARIOS[kind], seen)}
    if SCENARIOS[kind] is listening:
        scripts["b"] = telling
    async with running(scripts, callers="ab", called="b", wait=False) as sim:
        sim.world.watch(watch)
        await anyio.sleep(1)
        if kind is f.Goodbye:
            sim.world.life("a").links.part("b", "it has had enough of it")
        await anyio.sleep(7)
        if kind is f.Put and sim.world.life("b").alive:
            seen.words.append(f"inbox({len(sim.role('b/called').notes.drain())})")
    assert met, f"no {kind.__name__} was sent"
    return str(seen)


# ------------------------------------------------------------------------------------------ what must come of it


class Expected(NamedTuple):
    """How the calls of `a` end, and the handlers on `b`: without faults, and when one of the two crashes.

    What `a` has not lived to see is missing. A call is lost with the effect "none" only where it surely had none.
    """

    undisturbed: str
    peer_gone_before: str
    peer_gone_after: str
    sender_gone_after: str


LOST = "6 lost(none) lost(unknown) ok | done"
EITHER = f"{LOST} or ok | done"  # both say it: as likely `a` is gone as `b`
ENDED = "lost(unknown) | stopped"
EXPECTED: dict[type, Expected] = {
    f.Call: Expected(
        "2 ok | 2 done", "DeadlineExceeded lost(unknown) |", "DeadlineExceeded lost(unknown) | 2 stopped", "| 2 done"
    ),
    f.Reply: Expected("2 ok | 2 done", "| 2 done", "2 ok | 2 done", "2 ok | 2 done"),
    f.Failed: Expected("LookupError | done", "| done", "LookupError | done", "LookupError | done"),
    f.Cancel: Expected("left | stopped", "left | stopped", "left | stopped", "left | stopped"),
    f.Cancelled: Expected("left | stopped", "| stopped", "left | stopped", "left | stopped"),
    f.Full: Expected("6 ok | 6 done", "| 4 done", "| 4 done", "2 lost(none) 4 lost(unknown) | stopped"),
    f.Ready: Expected("6 ok | 6 done", "| 4 done", "ok | 5 done", "lost(none) 4 lost(unknown) ok | done stopped"),
    f.Admitted: Expected("reports[0, 1, 2] | done", "| done", "| done", "lost(unknown) | stopped"),
    f.Progress: Expected("reports[0, 1, 2] | done", "| done", "| done", "lost(unknown) | stopped"),
    f.Item: Expected("all items | done", "| stopped", "all items | done", "all items | done"),
    f.Credit: Expected("all items | done", "lost(unknown) | stopped", "all items | done", "all items | done"),
    f.Put: Expected("inbox(1) ok |", "lost(unknown) |", "ok |", "inbox(1) ok |"),
    f.Subscribe: Expected("heard(all) |", "heard(some) |", "heard(some) |", "|"),
    f.Subscribed: Expected("heard(all) |", "|", "|", "heard(some) |"),
    f.Unsubscribe: Expected("heard(all) |", "heard(all) |", "heard(all) |", "heard(all) |"),
    f.Event: Expected("heard(all) |", "|", "heard(all) |", "heard(all) |"),
    f.EventCredit: Expected("heard(all) |", "heard(some) |", "heard(all) |", "heard(all) |"),
    f.Heartbeat: Expected("8 ok | 8 done", LOST, "ok | done", LOST),
    f.HeartbeatReply: Expected("8 ok | 8 done", LOST, LOST, "ok | done"),
    f.Goodbye: Expected(
        "lost(unknown) | stopped", "lost(unknown) | stopped", "lost(unknown) | stopped", "lost(unknown) | stopped"
    ),
}
TOO_LATE: dict[type, str] = {
    f.Call: "DeadlineExceeded ok | done stopped or DeadlineExceeded ok | done",  # one of the two has no deadline
    f.Reply: "DeadlineExceeded ok | 2 done",
    f.Failed: "DeadlineExceeded | done",
}
"""What comes of it when a frame is delayed, where that makes a difference."""


def expected(kind: type, fault: str | None) -> str:
    """Return what the contract says of a cell of the matrix; of several, " or " in between."""
    if fault is not None and "gone" in fault:
        return str(getattr(EXPECTED[kind], fault.replace(" ", "_")))
    undisturbed = EXPECTED[kind].undisturbed
    return TOO_LATE.get(kind, undisturbed) if fault == "delayed" else undisturbed


def test_the_matrix_has_every_kind_of_frame() -> None:
    assert set(get_args(f.Frame)) == set(SCENARIOS) | NEVER_SENT
    assert set(SCENARIOS) == set(EXPECTED)


@pytest.mark.parametrize("fault", [None, *FAULTS])
@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda kind: kind.__name__)
def test_what_goes_wrong_with_a_frame_ends_as_the_contract_says(kind: type, fault: str | None) -> None:
    found = rc.simulate(partial(outcome, kind, fault), threads="inline")
    assert found in expected(kind, fault).split(" or ")
