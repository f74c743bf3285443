"""The checked mode: every message is encoded and decoded, and nothing may change after it was handed over.

What works in one process then works between nodes: arguments that cannot travel, results of the wrong type
and values changed behind the receiver's back are found here rather than there.
"""

from __future__ import annotations

import typing
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from rolecall.core.errors import NotEncodable, RolecallError, ValueChanged
from rolecall.core.ids import RoleId
from rolecall.core.inboxes import Inbox
from rolecall.core.tensors import Tensors
from rolecall.core.topics import Topic
from rolecall.runtime.calls import Invocation
from rolecall.runtime.wire_errors import from_wire, to_wire
from rolecall.wire import ArgsCodec, chunk_decode, chunk_encode, decode, encode, fingerprint
from rolecall.wire.frame_codec import encode_frame
from rolecall.wire.frames import Failed

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance
    from rolecall.runtime.node import Node

__all__ = ("Checker",)

WATCHED = 64


class Frozen(msgspec.Struct, frozen=True, eq=False):
    """A value that was handed over, and what it looked like then."""

    value: Any
    print: bytes
    channel: str
    what: str
    owner: str

    @classmethod
    def of(cls, value: Any, channel: str, what: str, owner: str) -> Frozen:
        """Take the fingerprint of a value that `owner` hands over."""
        return cls(value, fingerprint(value, where=f"{channel}: {what}"), channel, what, owner)

    @property
    def changed(self) -> ValueChanged | None:
        """The error, if the value is not what it was."""
        try:
            same = fingerprint(self.value) == self.print
        except NotEncodable:
            same = False
        return None if same else ValueChanged(self.channel, self.what, self.owner)


def _values(invocation: Invocation) -> tuple[Any, ...]:
    return (*invocation.args, *invocation.kwargs.values())


def _immutable(value: Any) -> bool:
    """Whether nothing in a value can change, so that nobody needs to look."""
    if isinstance(value, tuple | frozenset):
        return all(map(_immutable, value))
    if isinstance(value, msgspec.Struct) and value.__struct_config__.frozen:
        return all(_immutable(getattr(value, name)) for name in value.__struct_fields__)
    return value is None or isinstance(value, bool | int | float | str | bytes | Enum | Tensors)


class Checker:
    """Checks what the roles of one node receive, return and emit.

    Attributes:
        violations: changes found where nobody could be told by an error; a checked run fails with the first.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._watched: deque[Frozen] = deque()
        self.violations: list[ValueChanged] = []

    # ------------------------------------------------------------------------------------------ arguments

    def passed(self, invocation: Invocation, shared: tuple[dict[int, Any], int] | None) -> None:
        """Replace the arguments of a call by what the other side would have received."""
        codec = ArgsCodec.of(invocation.dispatcher.signature)
        store, key = shared if shared is not None else ({}, 0)
        where, caller = invocation.where, invocation.caller
        if key not in store:
            packed = chunk_encode(codec.encode(invocation.args, invocation.kwargs))
            store[key] = packed, self._watch(_values(invocation), where, "an argument", caller)
        packed, sent = store[key]
        invocation.args, invocation.kwargs = codec.decode(chunk_decode(packed))
        received = self._watch(_values(invocation), where, "an argument, as its handler got it,", caller)
        invocation.frozen = (sent, received)
        self.look()

    def returned(self, invocation: Invocation, result: Any) -> None:
        """End a call with what its caller would have received, or with what was wrong."""
        where, owner = invocation.where, invocation.dispatcher.role
        try:
            self._require_unchanged(invocation)
            hint = invocation.dispatcher.signature.result if invocation.items is None else Any
            arrived = self._handed_over(result, hint, where, "result", owner)
        except RolecallError as error:
            invocation.fail(error)
        else:
            invocation.finish(arrived)
        self.look()

    def raised(self, error: Exception, where: str) -> Exception:
        """Return the error of a handler as its caller would have received it from another node."""
        return from_wire(msgspec.msgpack.decode(encode_frame(Failed(0, to_wire(error, where))), type=Failed).error)

    def _require_unchanged(self, invocation: Invocation) -> None:
        """Raise if the arguments have changed while the call was handled."""
        for frozen in invocation.frozen or ():
            if frozen is not None and (error := frozen.changed) is not None:
                if frozen in self._watched:
                    self._watched.remove(frozen)
                raise error

    def item(self, invocation: Invocation, item: Any) -> Any:
        """Return an item of a stream as its reader would have received it."""
        hint = (typing.get_args(invocation.dispatcher.signature.result) or (Any,))[0]
        return self._handed_over(item, hint, invocation.where, "item", invocation.dispatcher.role)

    # ------------------------------------------------------------------------------------ events and messages

    def emitted(self, instance: RoleInstance, topic: Topic[Any], item: Any) -> Any:
        """Return an event as its subscribers would have received it."""
        return self._handed_over(item, topic.type, f"{instance.id}.{topic.name}", "event", instance.id)

    def put(self, sender: RoleInstance, receiver: RoleInstance, inbox: Inbox[Any], item: Any) -> Any:
        """Return a message as the owner of the inbox would have received it."""
        return self._handed_over(item, inbox.type, f"{receiver.id}.{inbox.name}", "message", sender.id)

    def look(self) -> None:
        """Look whether anything that was handed over has changed since."""
        for frozen in list(self._watched):
            if (error := frozen.changed) is not None:
                self._watched.remove(frozen)
                self.violations.append(error)
                self._node.bury("value", RoleId(frozen.owner), frozen.channel, error)

    # ------------------------------------------------------------------------------------------ inside

    def _handed_over(self, value: Any, hint: Any, channel: str, what: str, owner: str) -> Any:
        """Return a value as it arrives; from now on neither side may change it."""
        where = f"{channel}: {what}"
        arrived = decode(chunk_decode(chunk_encode(encode(value, where=where))), hint, where=where)
        self.look()
        article = "an" if what[0] in "aeiou" else "a"
        self._watch(value, channel, f"{article} {what}", owner)
        self._watch(arrived, channel, f"{article} {what}, as its receiver got it,", owner)
        return arrived

    def _watch(self, value: Any, channel: str, what: str, owner: str) -> Frozen | None:
        """Begin to watch a value, if it can change; the oldest of too many is looked at for the last time."""
        if _immutable(value):
            return None
        frozen = Frozen.of(value, channel, what, owner)
        self._watched.append(frozen)
        if len(self._watched) > WATCHED:
            self.look()
        while len(self._watched) > WATCHED:
            self._watched.popleft()
        return frozen
