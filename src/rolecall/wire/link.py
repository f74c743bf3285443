"""The link to one life of another node: its session, and the connection that carries it for the time being."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, Literal, Protocol, TypeAlias, cast

from rolecall.wire.extensions import Segment
from rolecall.wire.frame_codec import encode_frame
from rolecall.wire.frames import Frame, Goodbye, Heartbeat, HeartbeatReply
from rolecall.wire.head_codec import batch_start, entry_head, head_start
from rolecall.wire.heads import UNNUMBERED, Acks
from rolecall.wire.limits import LinkOverflow, Malformed
from rolecall.wire.pacing import Pace, PacedPipe
from rolecall.wire.peers import Peer, printable
from rolecall.wire.pipe import Pipe
from rolecall.wire.session import Session
from rolecall.wire.shared_lane import SharedLane, SharedMemoryLost
from rolecall.wire.suspicion import Suspicion
from rolecall.wire.turns import Turns

__all__ = ("Ending", "FrameHandler", "Link")

logger = logging.getLogger(__name__)

FrameHandler: TypeAlias = Callable[[Frame, Sequence[memoryview]], None]
Ending: TypeAlias = Literal["closed", "left", "lost"]
"""By this side, by the other side on purpose, or against the will of at least one."""

_EARLY_FRAMES: Final = 4_096
_FLUSH_FRAMES: Final = 32  # sent in one turn of the loop: the other side may begin with them
_ABOUT_CONNECTION: Final = frozenset({Heartbeat, HeartbeatReply, Goodbye})


class Owner(Protocol):
    """Whose link it is: an `Exchange`."""

    def link_cut(self, link: Link, reason: str) -> None:
        """Take note that a link has no connection any more."""

    def link_ended(self, link: Link, how: Ending, reason: str) -> None:
        """Take note that a link has ended."""


class Link:
    """A conversation with one life of a node, over however many connections it takes.

    Made by an `Exchange`. `peer` is who is at the other end, `session` keeps what has not arrived, `dialled` is the
    address that this side dials, or None where the other side does. All is used from one event loop.
    """

    __slots__ = (
        "_acknowledging", "_cut_s", "_early", "_heard_bytes", "_loop", "_on_frame", "_owner", "_pipe",
        "_pumping", "_received_before", "_room_wanted", "_sent_before", "_suspicion", "_turns", "_unwritten",
        "_waiting",
        "connection", "dialled", "ended", "lane", "number", "pace", "peer", "round_trip_s", "session",
    )  # fmt: skip

    def __init__(
        self,
        peer: Peer,
        session: Session,
        suspicion: Suspicion,
        turns: Turns,
        *,
        number: int,
        dialled: str | None,
        owner: Owner,
    ) -> None:
        self.peer, self.session, self.number, self.dialled = peer, session, number, dialled
        self.connection = -1
        """The number of the present connection, or of the last one; the first is 0."""
        self.ended: str | None = None
        """Why the link has ended, once it has."""
        self.round_trip_s: float | None = None
        """How long the last heartbeat took to be answered."""
        self.lane: SharedLane | None = None
        """By which memory is shared with a peer on this machine, once that has come about."""
        self.pace: Pace | None = None
        """What slows its connections down from the next one on, if anything does."""
        self._suspicion, self._turns = suspicion, turns
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._pipe: Pipe | None = None
        self._cut_s: float | None = None  # since when there is no connection
        self._unwritten = 0
        self._pumping = self._acknowledging = False  # whether its turn is to come
        self._heard_bytes = 0
        self._sent_before = self._received_before = 0  # on earlier connections
        self._early: list[tuple[Frame, Sequence[memoryview]]] | None = []
        self._on_frame: FrameHandler | None = None
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] | None = None
        self._room_wanted: list[Callable[[], None]] | None = None

    def __repr__(self) -> str:
        state = self.ended or ("connected" if self._pipe is not None else "disconnected")
        return f"Link({self.peer.name}, {state})"

    # ------------------------------------------------------------------------------------------- for the owner

    @property
    def lost(self) -> bool:
        """Whether the link has ended, for whatever reason."""
        return self.ended is not None

    @property
    def connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._pipe is not None

    @property
    def on_frame(self) -> FrameHandler | None:
        """What is called with each frame and its payload, in order; it must not raise.

        What has come before it is set, is handed over when it is.
        """
        return self._on_frame

    @on_frame.setter
    def on_frame(self, handler: FrameHandler) -> None:
        self._on_frame = handler
        early, self._early = self._early, None
        for frame, payload in early or ():
            self._hand_over(frame, payload)

    def send(
        self, frame: Frame, segments: Sequence[Segment] = (), *, urgent: bool = False, compress: bool = False
    ) -> None:
        """Queue a frame; see `Session.send`, also for what it raises. On a link that has ended, do nothing."""
        if self.ended is not None:
            return
        self.session.send(frame, segments, urgent=urgent, compress=compress)
        self._unwritten += 1
        if self._unwritten >= _FLUSH_FRAMES:
            self._write()
        self.wake()

    def when_room(self, go_on: Callable[[], None]) -> None:
        """Call a function once, when there is room again after a `LinkOverflow`; never, if the link ends before."""
        if self._room_wanted is None:
            self._room_wanted = []
        self._room_wanted.append(go_on)

    async def drained(self, below_bytes: int = 1) -> None:
        """Wait until fewer than `below_bytes` wait to be sent, or the link has ended."""
        await self._until(lambda: self.session.queued_bytes < below_bytes)

    async def acknowledged(self) -> None:
        """Wait until the other side has everything that was sent, or the link has ended."""
        await self._until(lambda: self.session.idle)

    def close(self, reason: str) -> None:
        """End the link, and tell the other side why; what it has not acknowledged may be lost."""
        self.end("closed", reason, say=reason)

    @property
    def sent_bytes(self) -> int:
        """Bytes of chunks written, on all connections."""
        return self._sent_before + (self._pipe.sent_bytes if self._pipe else 0)

    @property
    def received_bytes(self) -> int:
        """Bytes of chunks read, on all connections."""
        return self._received_before + (self._pipe.received_bytes if self._pipe else 0)

    # ---------------------------------------------------------------------------------------- for the exchange

    def attach(self, pipe: Pipe, connection: int, peer_acks: Acks) -> None:
        """Go on over `pipe`, from the next `resume` on; raise `Malformed` for acknowledgements that cannot be true."""
        try:
            self.session.connected(peer_acks)
        except Malformed as error:
            self.end("lost", f"it does not keep to the protocol: {error}")
            raise
        self.connection = connection
        if self.pace is not None:
            pipe = cast(Pipe, PacedPipe(pipe, self.pace))
        self._pipe, self._cut_s, self._heard_bytes = pipe, None, -1

    def resume(self) -> None:
        """Read and write what has been waiting for a connection."""
        pipe = self._pipe
        if pipe is None:
            return
        pipe.deliver(self, self.session.limits.wire)
        if pipe.closed is not None and self._pipe is pipe:
            self.cut(pipe.closed)
        self.wake()

    def share(self, lane: SharedLane) -> None:
        """Have large payloads go by memory that both sides see, as long as that works."""
        if self.ended is not None:
            lane.close()
            return
        self.lane = lane
        self.session.use(lane)

    def detach(self, reason: str) -> None:
        """Do without a connection, until the next `attach`."""
        if self._pipe is not None:
            self._drop_pipe().abort(reason)
            self._cut_s = self._loop.time()

    def tick(self, now_s: float, resume_s: float) -> None:
        """Send a heartbeat, and end the link when nothing has been heard for too long."""
        if self._pipe is None:
            if self._cut_s is not None and now_s - self._cut_s > resume_s:
                self.lose(f"there was no connection for {now_s - self._cut_s:.1f} s")
            return
        if self._pipe.received_bytes != self._heard_bytes:
            self._heard_bytes = self._pipe.received_bytes
            self._suspicion.beat(now_s)
        elif self._suspicion.suspects(now_s):
            self.lose(f"nothing was heard for more than {self._suspicion.deadline_s(now_s):.1f} s")
            return
        self._say(Heartbeat(now_s))

    def excuse(self, stall_s: float) -> None:
        """Do not hold a silence against the peer that is this process's own."""
        self._suspicion.excuse(stall_s)
        if self._cut_s is not None:
            self._cut_s += stall_s

    def lose(self, reason: str) -> None:
        """End the link because its peer is gone, or as good as gone."""
        self.end("lost", reason, say=f"this node is considered lost: {reason}")

    def end(self, how: Ending, reason: str, say: str = "") -> None:
        """End the link because of `reason`, and tell the other side what to `say` to it, if anything."""
        if self.ended is not None:
            return
        self.ended = reason
        if self._pipe is not None:
            if say:
                self._pipe.write([_goodbye(say, self.session.acks)])
            self._drop_pipe().close(reason)
        self._early = None
        self.session.let_go()
        if self.lane is not None:
            self.lane.close()
        self._room_wanted = None
        self._check_waiting()
        self._owner.link_ended(self, how, reason)

    # -------------------------------------------------------------------------------------------------- ending

    def violated(self, error: Malformed) -> None:
        """End the link because its peer does not keep to the protocol, on the connection or beside it."""
        problem = f"it does not keep to the protocol: {error}"
        self.end("lost", problem, say=problem)

    def cut(self, reason: str) -> None:
        """Go on without the connection, which has ended."""
        self.detach(reason)
        self._owner.link_cut(self, reason)

    def _drop_pipe(self) -> Pipe:
        pipe, self._pipe = self._pipe, None
        assert pipe is not None
        pipe.reader = None
        self._sent_before += pipe.sent_bytes
        self._received_before += pipe.received_bytes
        self.session.disconnected()
        return pipe

    # ------------------------------------------------------------------------------------------------- reading

    def on_chunk(self, segments: list[memoryview]) -> None:
        """Take a chunk that has come; raise `Malformed` where it cannot be one of this conversation."""
        try:
            received = self.session.receive(segments)
        except SharedMemoryLost as error:
            self._do_without(str(error))
            return
        for frame, payload in received:
            if self.ended is not None:
                return
            if type(frame) in _ABOUT_CONNECTION:
                self._about_connection(frame)
            else:
                self._hand_over(frame, payload)
                if not self._acknowledging:
                    self._acknowledging = True
                    self._turns.acknowledge_later(self)
        if self._waiting or self._room_wanted or self.session.has_work:
            self.wake()

    def _do_without(self, reason: str) -> None:
        """Have the payload that cannot be seen sent again, over another connection."""
        if self._pipe is not None:
            self.cut(reason)

    def acknowledge(self) -> None:
        """Tell the other side what has come, unless it knows; called when it is this link's turn."""
        self._acknowledging = False
        if self._pipe is not None:
            self.session.ack_soon()
            if self.session.has_work:
                self.wake()

    def _about_connection(self, frame: Frame) -> None:
        if isinstance(frame, Heartbeat):
            self._say(HeartbeatReply(frame.sent_s))
        elif isinstance(frame, HeartbeatReply):
            self.round_trip_s = self._loop.time() - frame.sent_s
        elif isinstance(frame, Goodbye):
            self.end("left", f"it has ended the link: {printable(frame.reason)}")

    def _say(self, frame: Heartbeat | HeartbeatReply) -> None:
        try:
            self.send(frame)
        except LinkOverflow:
            self.lose("it takes nothing any more")

    def _hand_over(self, frame: Frame, payload: Sequence[memoryview]) -> None:
        if self._on_frame is None:
            if self._early is None:
                self._early = []
            self._early.append((frame, payload))
            if len(self._early) > _EARLY_FRAMES:
                self.lose(f"nobody took the first {_EARLY_FRAMES:,} frames")
            return
        try:
            self._on_frame(frame, payload)
        except Exception:
            logger.exception("%s: a frame could not be handled: %.200r", self.peer.name, frame)
            self.lose("a frame could not be handled, which is this node's fault")

    # ------------------------------------------------------------------------------------------------- writing

    def wake(self) -> None:
        """Look soon whether something can be sent."""
        if not self._pumping:
            self._pumping = True
            self._turns.write_soon(self)

    def pump(self) -> None:
        """Write what there is to write, as far as the connection takes it; called when it is this link's turn."""
        self._pumping = False
        self._write()
        if self._room_wanted:
            self._give_room()
        if self._waiting:
            self._check_waiting()

    def _write(self) -> None:
        self._unwritten = 0
        session = self.session
        while session.has_work and (pipe := self._pipe) is not None and pipe.writable:
            chunk = session.next_chunk()
            if chunk is None:
                break
            pipe.write(chunk)

    def _give_room(self) -> None:
        """Have those go on who wait for room, each in turn; one that needs more comes again at the end."""
        for _ in range(len(self._room_wanted or ())):
            if not self._room_wanted or not self.session.has_room:
                return
            self._room_wanted.pop(0)()

    def _check_waiting(self) -> None:
        going_on = []
        for is_over, waiter in self._waiting or ():
            if waiter.done():
                continue
            if self.ended is not None or is_over():
                waiter.set_result(None)
            else:
                going_on.append((is_over, waiter))
        self._waiting = going_on or None

    async def _until(self, is_over: Callable[[], bool]) -> None:
        if self.ended is None and not is_over():
            waiter = self._loop.create_future()
            if self._waiting is None:
                self._waiting = []
            self._waiting.append((is_over, waiter))
            await waiter


def _goodbye(reason: str, acks: Acks) -> bytes:
    """Return the head of a chunk that says goodbye, past whatever else waits."""
    entry = entry_head(encode_frame(Goodbye(reason[:1_000])), 0)
    return b"".join([head_start(acks, 1), batch_start(UNNUMBERED, 0, 1), entry])
