"""A node with its links: what joins the runtime's side of a link with the wire's."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rolecall.core.errors import RolecallError
from rolecall.runtime.network import Network
from rolecall.runtime.node import Node
from rolecall.wire.exchange import Exchange, ExchangeLimits
from rolecall.wire.link import Link
from rolecall.wire.peers import Peer
from rolecall.wire.security import TlsFiles

if TYPE_CHECKING:
    from grpclib._typing import IServable
    from grpclib.events import RecvRequest

__all__ = ("Links",)


class Links:
    """The links of one node, made when the first message needs them; use it as an async context manager.

    `on_joined` is called with the name of each node there is a new link to, `on_lost` with the name and the reason
    when a link is lost; the roles over there are lost by then. `on_unknown` is called with the name of a node there is
    something to send to and no address of; it says whether it finds a way. `on_refused` is called with where somebody
    was who wanted a link and got none, and why. `services` and `check_request` are the exchange's.
    """

    __slots__ = ("_contacts", "_node", "_on_joined", "_on_lost", "_on_unknown", "exchange", "network")

    def __init__(
        self,
        node: Node,
        *,
        secret: bytes | None = None,
        tls: TlsFiles | None = None,
        on_joined: Callable[[str], None] = lambda peer: None,
        on_lost: Callable[[str, str], None] = lambda peer, why: None,
        limits: ExchangeLimits | None = None,
        on_unknown: Callable[[str], bool] = lambda peer: False,
        on_refused: Callable[[str, str], None] = lambda remote, why: None,
        services: Sequence[IServable] = (),
        check_request: Callable[[RecvRequest], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._node, self._on_joined, self._on_lost, self._on_unknown = node, on_joined, on_lost, on_unknown
        self._contacts: dict[str, str] = {}
        self.network = node.network = Network(node, self._reach)
        self.exchange = Exchange(
            Peer(node.name, node.incarnation),
            secret=secret, tls=tls, on_link=self._linked, on_lost=self._cut_off, limits=limits,
            services=services, check_request=check_request, on_refused=on_refused,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        await self.exchange.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.exchange.__aexit__(kind, error, trace)

    def meet(self, contacts: Mapping[str, str]) -> None:
        """Take note of where nodes listen; a link is made when there is something to send."""
        self._contacts.update(contacts)

    @property
    def contacts(self) -> dict[str, str]:
        """Where nodes listen, as far as it is known here: what others said, and what those linked with say."""
        linked = {name: link.peer.address for name, link in self.exchange.links.items()}
        return {**self._contacts, **{name: at for name, at in linked.items() if at is not None}}

    def part(self, peer: str, why: str) -> None:
        """Take a node for lost, and have no more to do with it."""
        self._contacts.pop(peer, None)
        link = self.exchange.links.get(peer)
        if link is not None:
            link.close(why)
        self.network.leave(peer, why)

    # ------------------------------------------------------------------------------------------ what happens

    def _reach(self, peer: str) -> bool:
        address = self._contacts.get(peer)
        if address is None:
            return self._on_unknown(peer)

        async def dial() -> None:
            try:
                await self.exchange.dial(address, peer)
            except RolecallError as error:
                if peer not in self.exchange.links:
                    self._lose(peer, str(error))

        self._node.spawn(dial, f"dial {peer}")
        return True

    def _linked(self, link: Link) -> None:
        self.network.join(link.peer.name, link)
        self._on_joined(link.peer.name)

    def _cut_off(self, peer: Peer, why: str) -> None:
        self._lose(peer.name, why)

    def _lose(self, peer: str, why: str) -> None:
        self._contacts.pop(peer, None)
        self.network.leave(peer, why)
        self._on_lost(peer, why)
