"""What the commands that look after runs and nodes do: the same from a shell and from `rolecall shell`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio

from rolecall.cli.places import Place, Places
from rolecall.cli.views import View, duration
from rolecall.core.errors import ConfigError, RolecallError
from rolecall.core.patterns import is_pattern, matches

if TYPE_CHECKING:
    from rolecall.fleet.client import Client
    from rolecall.fleet.records import Record

__all__ = (
    "assign_role",
    "list_all",
    "make_call",
    "pause_roles",
    "relate_roles",
    "resume_roles",
    "show_logs",
    "show_status",
    "stop_it",
)

ANSWER_S = 3.0
"""How long `ps` waits for what runs to say what it is doing."""
_POLL_S = 0.05


async def list_all(view: View, places: Places) -> None:
    """Show a row for each run and node."""
    found = places.all()
    doing: dict[str, str] = {}

    async def ask(place: Place) -> None:
        doing[place.id] = await _doing(place)

    async with anyio.create_task_group() as tasks:
        for place in found:
            tasks.start_soon(ask, place)
    for place in found:
        if place.record is not None:
            view.row(place.record.kind, _row(place.record, doing[place.id]))
    if not found:
        view.said("nothing", "Nothing runs here that could be looked after.")


def _row(record: Record, doing: str) -> dict[str, Any]:
    return {
        "id": record.id,
        "what": record.kind if record.engine is None else f"{record.kind}, {record.engine}",
        "application": doing or None,
        "nodes": len(record.nodes),
        "pid": record.pid,
        "since": duration(time.time() - record.began_s),
        "listens": record.listen,
        "run_dir": record.run_dir,
    }


async def _doing(place: Place) -> str:
    """Return the application that runs in a place, or that it does not answer."""
    try:
        with anyio.fail_after(ANSWER_S):
            async with place.connected() as client:
                return client.application or ""
    except (RolecallError, TimeoutError):
        return "(does not answer)"


async def show_status(view: View, places: Places, name: str | None = None) -> None:
    """Show what runs on a node, on all nodes of a run, or everywhere."""
    for place, nodes in _chosen(places, name):
        async with place.connected() as client:
            for node in _these(client, nodes):
                view.status(await client.status(node))


def _chosen(places: Places, name: str | None) -> Sequence[tuple[Place, str | None]]:
    """Return what a name stands for: places, each with the nodes that are meant, None for all."""
    if name is None:
        return [(place, None) for place in places.some()]
    called = places.called(name)
    if called is not None:
        return [(called, None)]
    return [(places.of_node(name), name)]


def _these(client: Client, wanted: str | None) -> list[str]:
    nodes = client.nodes
    if wanted is None:
        return nodes
    return [node for node in nodes if matches(wanted, node)] if is_pattern(wanted) else [wanted]


async def show_logs(
    view: View, places: Places, source: str = "", level: str = "info", *, past: int = 100, follow: bool = False
) -> None:
    """Show the log of a role, of those that match a pattern, of a node, of a run, or of the only one there is."""
    place, source = _logged(places, source)
    async with place.connected() as client:
        async for line in client.logs(source, level, past=past, follow=follow):
            view.log(line)


def _logged(places: Places, source: str) -> tuple[Place, str]:
    if not source:
        return places.single(), ""
    if "/" in source:
        return places.of_role(source), source
    called = places.called(source)
    return (called, "") if called is not None else (places.of_node(source), source)


async def make_call(
    view: View, places: Places, role: str, channel: str, arguments: Mapping[str, Any], timeout_s: float = 0
) -> None:
    """Call a role and show what it returns, item by item where it is a stream."""
    async with places.of_role(role).connected() as client:
        async with aclosing(client.stream(role, channel, arguments, deadline_s=timeout_s)) as results:
            async for result in results:
                view.result(role, channel, result)


async def assign_role(
    view: View, places: Places, node: str, name: str, role: Mapping[str, Any], relationships: Mapping[str, list[str]]
) -> None:
    """Create a role on a node, and say so."""
    async with places.of_node(node).connected() as client:
        made = await client.assign(name, role, node=node, relationships=relationships)
    view.said("assigned", f"{made} is ready.", role=made)


async def pause_roles(view: View, places: Places, roles: str) -> None:
    """Pause roles, and say so once nothing of them runs."""
    async with places.of_role(roles).connected() as client:
        for role in await client.pause(roles):
            view.said("paused", f"{role} is paused.", role=role)


async def resume_roles(view: View, places: Places, roles: str) -> None:
    """Have paused roles go on, and say so."""
    async with places.of_role(roles).connected() as client:
        for role in await client.resume(roles):
            view.said("resumed", f"{role} goes on.", role=role)


async def relate_roles(
    view: View, places: Places, of: str, relationship: str, roles: Sequence[str], how: str, alias: str | None
) -> None:
    """Have a relationship name others, and say so."""
    place = places.of_role(of) if "/" in of else places.of_node(of)
    async with place.connected() as client:
        if alias is not None:
            await client.alias(of, relationship, alias)
            view.said("related", f"{relationship} of {of} stands for {alias}.", of=of, name=relationship, alias=alias)
            return
        await client.relate(of, relationship, roles, how=how)
    changes = {"replace": "is now", "add": "has more:", "remove": "has no more:"}
    text = f"{relationship} of {of} {changes[how]} {', '.join(roles) or 'nobody'}."
    view.said("related", text, of=of, name=relationship, how=how, roles=list(roles))


async def stop_it(view: View, places: Places, name: str, timeout_s: float = 60.0) -> None:
    """Stop a run or a node and wait until it has ended, or stop roles."""
    if "/" in name:
        async with places.of_role(name).connected() as client:
            for role in await client.stop(name, reason="rolecall stop"):
                view.said("stopped", f"{role} has stopped.", role=role)
        return
    place = places.called(name) or _whole(places, name)
    async with place.connected() as client:
        await client.stop(reason="rolecall stop")
    if place.record is None:
        view.said("stopping", f"{name} is stopping.", name=name)
    elif await _ended(place.record, timeout_s):
        view.said("stopped", f"{place.id} has ended.", name=place.id)
    else:
        hint = f"Process {place.record.pid}: wait longer, or end it with kill"
        raise RolecallError(f"{place.id} is stopping, and has not ended within {timeout_s:g} s. {hint}.")


def _whole(places: Places, name: str) -> Place:
    """Return the place that is a node by itself; raise for one of the nodes of a run."""
    place = places.of_node(name)
    if place.record is not None and place.record.kind == "run":
        hint = f"Stop the run (rolecall stop {place.id}), or the roles of the node (rolecall stop '{name}/*')"
        raise ConfigError(f"node {name!r}", f"it lives as long as the run {place.id}", hint=hint)
    return place


async def _ended(record: Record, timeout_s: float) -> bool:
    """Wait until the process of a run has ended; a node may be one of several in its process."""
    with anyio.move_on_after(timeout_s):
        while record.is_published if record.kind == "node" else record.is_alive:  # noqa: ASYNC110 - it tells nobody
            await anyio.sleep(_POLL_S)
        return True
    return False
