"""The handlers of a role class at work: who of a relationship is listened to, and who is told of its changes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

from rolecall.core.conditions import Conditions, compile_conditions
from rolecall.core.errors import RoleLost
from rolecall.core.ids import RoleId
from rolecall.core.policies import ChannelOptions
from rolecall.core.topics import Handles, Topic
from rolecall.runtime.calls import Invocation
from rolecall.runtime.dispatcher import Dispatcher
from rolecall.runtime.topics import HandlerSink, OwnTopic

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance
    from rolecall.runtime.remote_topics import RemoteTopic

__all__ = ("Listening",)

Members: TypeAlias = Callable[[str], tuple[RoleId, ...]]


class Listening:
    """All that a role hears of its relationships: events of the members, and who joins and leaves."""

    def __init__(self, instance: RoleInstance, members: Members) -> None:
        self._instance, self._members = instance, members
        self._listeners: list[_Listener] = []
        self._changes: dict[str, Dispatcher] = {}

    def start(self) -> None:
        """Listen to the members there are, and tell of them as joined.

        Raises:
            CallerError: a relationship is not configured, a member has no such topic, a condition is wrong.
        """
        told: dict[str, dict[str, list[str]]] = {}
        for name, marks in self._instance.declared.handlers.items():
            for mark in marks:
                if mark.membership:
                    told.setdefault(mark.relationship, {}).setdefault(mark.what, []).append(name)
                else:
                    self._listeners.append(_Listener(self._instance, name, mark))
        for listener in self._listeners:
            listener.follow(self._members(listener.mark.relationship), strict=True)
        for attribute, handlers in told.items():
            self._changes[attribute] = _change_queue(self._instance, handlers)
            self.tell(attribute, (), self._members(attribute))

    def follow(self) -> None:
        """Listen to members that are new, and no more to those that have left."""
        for listener in self._listeners:
            listener.follow(self._members(listener.mark.relationship))

    def tell(self, attribute: str, left: tuple[RoleId, ...], joined: tuple[RoleId, ...]) -> None:
        """Queue calls of `on_leave` and `on_join`, each member once and in order."""
        dispatcher = self._changes.get(attribute)
        if dispatcher is None or dispatcher.closed:
            return
        for what, roles in (("leave", left), ("join", joined)):
            for role in roles:
                dispatcher.submit(Invocation(dispatcher, role, (what, role), {}))

    def stop(self) -> None:
        """Listen to nobody."""
        for listener in self._listeners:
            listener.follow(())
        self._listeners.clear()


class _Listener:
    """One handler of one topic."""

    def __init__(self, instance: RoleInstance, name: str, mark: Handles) -> None:
        self._instance, self._name, self.mark = instance, name, mark
        # `latest` is kept per source, which the mailbox of a channel does not know.
        overflow = "drop_oldest" if mark.overflow == "latest" else mark.overflow
        options = ChannelOptions(mailbox=mark.capacity, overflow=overflow)
        dispatcher = instance.add_dispatcher(name, "event", getattr(instance.role, name), options)
        self._sink = HandlerSink(dispatcher, mark.overflow)
        self._topic: Topic[Any] = Topic(mark.item_type)
        self._topic.name = mark.what
        self._heard: dict[RoleId, OwnTopic[Any] | RemoteTopic | None] = {}

    def follow(self, members: tuple[RoleId, ...], *, strict: bool = False) -> None:
        """Attach to the topics of those that are new, detach from those of the others.

        A member that joins later and has no such topic is no reason to fail: that becomes a dead letter.
        """
        for source in [source for source in self._heard if source not in members]:
            topic = self._heard.pop(source)
            if topic is not None:
                topic.detach(self._sink)
            self._sink.leave(source)
        for source in members:
            if source in self._heard:
                continue
            try:
                self._heard[source] = self._attached(source)
            except RoleLost:
                continue  # it will be no member any more as soon as that is announced
            except Exception as error:  # of whatever kind: whoever has joined is not to blame
                if strict:
                    raise
                self._heard[source] = None
                self._instance.node.bury("subscription", self._instance.id, self._name, error)

    def _attached(self, source: RoleId) -> OwnTopic[Any] | RemoteTopic:
        condition = self._condition()
        topic = self._instance.node.topic(source, self._topic)
        topic.attach(self._sink, condition)
        return topic

    def _condition(self) -> Conditions | None:
        if not self.mark.where:
            return None
        place = f"{self._instance.id}.{self._name}"
        return compile_conditions(self.mark.where, self.mark.item_type, self._instance.role, place)


def _change_queue(instance: RoleInstance, handlers: dict[str, list[str]]) -> Dispatcher:
    """Return one queue for joins and leaves alike, so that no leave overtakes its join."""
    names = [name for what in handlers.values() for name in what]
    methods: dict[str, list[Callable[[RoleId], Coroutine[Any, Any, None]]]] = {
        what: [getattr(instance.role, name) for name in found] for what, found in handlers.items()
    }

    async def tell(what: str, role: RoleId) -> None:
        for method in methods.get(what, ()):
            await method(role)

    return instance.add_dispatcher("/".join(names), "event", tell, ChannelOptions())
