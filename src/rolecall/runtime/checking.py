"""The checked mode: every message is encoded and decoded, and nothing may change after it was handed over.

What works in one process then works between nodes: arguments that cannot travel, results of the wrong type
and values changed behind the receiver's back are found here rather than there.
"""

from __future__ import annotations

import typing
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from rolecall.core.errors import RolecallError, ValueChanged
from rolecall.core.ids import RoleId
from rolecall.core.inboxes import Inbox
from rolecall.core.signatures import Signature
from rolecall.core.topics import Topic
from rolecall.runtime.calls import Invocation
from rolecall.wire import ArgsCodec, chunk_decode, chunk_encode, decode, encode, fingerprint

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance
    from rolecall.runtime.node import Node

__all__ = ("Checker",)

WATCHED = 64


class Frozen(msgspec.Struct, frozen=True):
    """A value that was handed over, and what it looked like then."""

    value: Any
    print: bytes
    channel: str
    what: str
    owner: str

    @classmethod
    def of(cls, value: Any, channel: str, what: str, owner: str) -> Frozen:
        """Take the fingerprint of a value."""
        return cls(value, fingerprint(value, where=f"{channel}: {what}"), channel, what, owner)

    @property
    def changed(self) -> ValueChanged | None:
        """The error, if the value is not what it was."""
        same = fingerprint(self.value) == self.print
        return None if same else ValueChanged(self.channel, self.what, self.owner)


class Checker:
    """Checks what the roles of one node receive, return and emit.

    Attributes:
        violations: changes found where nobody could be told by an error; a checked run fails with the first.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._codecs: dict[Signature, ArgsCodec] = {}
        self._watched: deque[Frozen] = deque()
        self.violations: list[ValueChanged] = []

    # ------------------------------------------------------------------------------------------ arguments

    def passed(self, invocation: Invocation, shared: tuple[dict[int, Any], int] | None) -> None:
        """Replace the arguments of a call by what the other side would have received."""
        signature = invocation.dispatcher.signature
        codec = self._codec(signature)
        store, key = shared if shared is not None else ({}, 0)
        if key not in store:
            store[key] = chunk_encode(codec.encode(invocation.args, invocation.kwargs))
        sent = (invocation.args, invocation.kwargs)
        invocation.args, invocation.kwargs = codec.decode(chunk_decode(store[key]))
        received = (invocation.args, invocation.kwargs)
        where = invocation.where
        invocation.frozen = (
            Frozen.of(sent, where, "an argument", invocation.caller),
            Frozen.of(received, where, "an argument", "its handler"),
        )
        self.look()

    def returned(self, invocation: Invocation, result: Any) -> None:
        """End a call with what its caller would have received, or with what was wrong."""
        where = invocation.where
        try:
            for frozen in invocation.frozen or ():
                if (error := frozen.changed) is not None:
                    raise error
            hint = invocation.dispatcher.signature.result if invocation.items is None else Any
            arrived = self._travelled(result, hint, f"{where}: result")
            self._watch(Frozen.of(result, where, "a result", invocation.dispatcher.instance.id))
        except RolecallError as error:
            invocation.fail(error)
        else:
            invocation.finish(arrived)
        self.look()

    def item(self, invocation: Invocation, item: Any) -> Any:
        """Return an item of a stream as its reader would have received it."""
        hint = (typing.get_args(invocation.dispatcher.signature.result) or (Any,))[0]
        self._watch(Frozen.of(item, invocation.where, "an item", invocation.dispatcher.instance.id))
        return self._travelled(item, hint, f"{invocation.where}: item")

    # ------------------------------------------------------------------------------------ events and messages

    def emitted(self, instance: RoleInstance, topic: Topic[Any], item: Any) -> Any:
        """Return an event as its subscribers would have received it."""
        where = f"{instance.id}.{topic.name}"
        self._watch(Frozen.of(item, where, "an event", instance.id))
        return self._travelled(item, topic.type, f"{where}: event")

    def put(self, sender: RoleInstance, receiver: RoleInstance, inbox: Inbox[Any], item: Any) -> Any:
        """Return a message as the owner of the inbox would have received it."""
        where = f"{receiver.id}.{inbox.name}"
        self._watch(Frozen.of(item, where, "a message", sender.id))
        return self._travelled(item, inbox.type, f"{where}: message")

    def look(self) -> None:
        """Look whether anything that was handed over has changed since."""
        for frozen in list(self._watched):
            if (error := frozen.changed) is not None:
                self._watched.remove(frozen)
                self.violations.append(error)
                self._node.bury("value", RoleId(frozen.owner), frozen.channel, error)

    # ------------------------------------------------------------------------------------------ inside

    def _codec(self, signature: Signature) -> ArgsCodec:
        found = self._codecs.get(signature)
        if found is None:
            parameters = [(p.name, p.hint, p.optional) for p in signature.parameters]
            found = self._codecs[signature] = ArgsCodec(signature.channel, parameters)
        return found

    def _travelled(self, value: Any, hint: Any, where: str) -> Any:
        return decode(chunk_decode(chunk_encode(encode(value, where=where))), hint, where=where)

    def _watch(self, frozen: Frozen) -> None:
        self._watched.append(frozen)
        if len(self._watched) > WATCHED:
            self.look()
            self._watched.popleft()
