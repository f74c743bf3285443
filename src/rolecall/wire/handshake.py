"""How two nodes get to know each other on a new connection; sans-IO.

Four chunks: `Hello` from the node that dials, `Welcome` from the other, `Confirm`, `Established`; or `Refused` instead
of any of them. The first segment of each chunk is MessagePack, a map with the name of the step under "step"; unknown
keys are ignored. Where the run has a secret, `Welcome` and `Confirm` have a second segment: a proof that their sender
knows it. It covers all first segments so far, with the random bytes of both sides in them, so that it cannot be used
again, and the secret itself never travels.

`Confirm` and `Established` say how much of the session each side has received. The dialling side numbers its sessions;
the same number again is the same session on another connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from rolecall.wire.extensions import Segment
from rolecall.wire.heads import Acks
from rolecall.wire.limits import Malformed
from rolecall.wire.nesting import check_depth
from rolecall.wire.peers import LinkRefused, Peer, RefusedByPeer, printable
from rolecall.wire.pipe import HANDSHAKE_LIMITS
from rolecall.wire.security import new_nonce, proof_of, proves
from rolecall.wire.shared_messages import Offer

__all__ = (
    "PROTOCOLS",
    "Accepting",
    "Confirm",
    "Dialling",
    "Established",
    "Hello",
    "Refused",
    "Welcome",
    "encode_refused",
)

PROTOCOLS: Final = (1, 1)
"""The first and the last version of the link's protocol that this node speaks."""

Version: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Number: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Nonce: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=64)]
Code: TypeAlias = Annotated[str, Meta(max_length=100)]
Reason: TypeAlias = Annotated[str, Meta(max_length=2_000)]


class _Step(msgspec.Struct, frozen=True, kw_only=True, tag_field="step", omit_defaults=True):
    """Base of the steps."""


class Hello(_Step, frozen=True, kw_only=True, tag="hello"):
    """Who dials, and which versions of the protocol it speaks."""

    protocol_min: Version
    protocol_max: Version
    peer: Peer
    nonce: Nonce


class Welcome(_Step, frozen=True, kw_only=True, tag="welcome"):
    """Who answers, and the version it has chosen."""

    protocol: Version
    peer: Peer
    nonce: Nonce


class Confirm(_Step, frozen=True, kw_only=True, tag="confirm"):
    """Which session this is, its how-many-eth connection (from 0), whether there was one before, what was received."""

    session: Number
    connection: Number
    resumed: bool
    acks: Acks


class Established(_Step, frozen=True, kw_only=True, tag="established"):
    """The link is there; what has been received, and where to ask for shared memory."""

    acks: Acks
    shared_memory: Offer | None = None


class Refused(_Step, frozen=True, kw_only=True, tag="refused"):
    """There will be no link. The versions are those that the refusing side speaks."""

    code: Code
    reason: Reason
    protocol_min: Version = PROTOCOLS[0]
    protocol_max: Version = PROTOCOLS[1]


Step: TypeAlias = Hello | Welcome | Confirm | Established | Refused
S = TypeVar("S", Hello, Welcome, Confirm, Established)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Step] = msgspec.msgpack.Decoder(Step)
_DIALLER, _ACCEPTOR = "rolecall link dialler", "rolecall link acceptor"


class _Side:
    """What both sides do: remember what was said, and prove or check knowledge of the secret."""

    def __init__(self, me: Peer, secret: bytes | None, address: str) -> None:
        self._me, self._secret, self._address = me, secret, address
        self._said: list[bytes] = []

    def _say(self, step: Step, prove_as: str = "") -> list[Segment]:
        encoded = _encoder.encode(step)
        self._said.append(encoded)
        if prove_as and self._secret is not None:
            return [encoded, proof_of(self._secret, prove_as, *self._said)]
        return [encoded]

    def _hear(self, segments: Sequence[memoryview], expected: type[S]) -> S:
        if not segments:
            raise Malformed(f"An empty chunk came, where {_tag(expected)} was expected.")
        step = _decoded(segments[0])
        if isinstance(step, Refused):
            raise RefusedByPeer(self._address, printable(step.code), printable(step.reason))
        if not isinstance(step, expected):
            raise Malformed(f"{_tag(type(step))!r} came, where {_tag(expected)!r} was expected.")
        self._said.append(bytes(segments[0]))
        return step

    def _check_proof(self, segments: Sequence[memoryview], label: str, who: Peer) -> None:
        if self._secret is None:
            return
        if len(segments) < 2:
            raise LinkRefused(
                self._address, "secret", f"{who.name!r} has no secret, and node {self._me.name!r} has one"
            )
        if not proves(segments[1], self._secret, label, *self._said):
            raise LinkRefused(
                self._address,
                "secret",
                f"node {who.name!r} and node {self._me.name!r} have different secrets: they belong to different runs",
            )


class Dialling(_Side):
    """The side that dials: `hello`, then `welcomed`, `confirm`, `established`."""

    def hello(self) -> list[Segment]:
        """Return the first chunk to send."""
        first, last = PROTOCOLS
        return self._say(Hello(protocol_min=first, protocol_max=last, peer=self._me, nonce=new_nonce()))

    def welcomed(self, segments: Sequence[memoryview]) -> Peer:
        """Return who has answered; raise `LinkRefused` or `Malformed`."""
        welcome = self._hear(segments, Welcome)
        self._check_proof(segments, _ACCEPTOR, welcome.peer)
        if not PROTOCOLS[0] <= welcome.protocol <= PROTOCOLS[1]:
            raise LinkRefused(self._address, "protocol", _no_common_version(welcome.peer, *[welcome.protocol] * 2))
        return welcome.peer

    def confirm(self, confirm: Confirm) -> list[Segment]:
        """Return the chunk that asks for the session."""
        return self._say(confirm, _DIALLER)

    def established(self, segments: Sequence[memoryview]) -> Established:
        """Return what the other side has received of the session; raise `LinkRefused` or `Malformed`."""
        return self._hear(segments, Established)


class Accepting(_Side):
    """The side that is dialled: `greeted`, `welcome`, `confirmed`, `established`."""

    def greeted(self, segments: Sequence[memoryview]) -> Peer:
        """Return who dials, or says to be; raise `LinkRefused` or `Malformed`."""
        hello = self._hear(segments, Hello)
        self._peer = hello.peer
        if hello.protocol_max < PROTOCOLS[0] or hello.protocol_min > PROTOCOLS[1]:
            reason = _no_common_version(hello.peer, hello.protocol_min, hello.protocol_max)
            raise LinkRefused(self._address, "protocol", reason)
        self._version = min(hello.protocol_max, PROTOCOLS[1])
        return hello.peer

    def welcome(self) -> list[Segment]:
        """Return the answer."""
        return self._say(Welcome(protocol=self._version, peer=self._me, nonce=new_nonce()), _ACCEPTOR)

    def confirmed(self, segments: Sequence[memoryview]) -> Confirm:
        """Return which session is asked for, by a peer that knows the secret; raise `LinkRefused` or `Malformed`."""
        confirm = self._hear(segments, Confirm)
        self._check_proof(segments, _DIALLER, self._peer)
        return confirm

    def established(self, acks: Acks, shared_memory: Offer | None = None) -> list[Segment]:
        """Return the chunk after which the session goes on."""
        return self._say(Established(acks=acks, shared_memory=shared_memory))


def encode_refused(code: str, reason: str) -> list[Segment]:
    """Return the chunk that ends a handshake."""
    return [_encoder.encode(Refused(code=code, reason=reason[:2_000]))]


def _decoded(segment: memoryview) -> Step:
    check_depth(segment, HANDSHAKE_LIMITS)
    try:
        return _decoder.decode(segment)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"What came is no handshake: {error}.") from None


def _tag(step: type[_Step]) -> str:
    return str(step.__struct_config__.tag)


def _no_common_version(peer: Peer, first: int, last: int) -> str:
    theirs = f"version {first}" if first == last else f"versions {first} to {last}"
    mine = f"version {PROTOCOLS[0]}" if PROTOCOLS[0] == PROTOCOLS[1] else f"versions {PROTOCOLS[0]} to {PROTOCOLS[1]}"
    return (
        f"node {peer.name!r} speaks {theirs} of the link's protocol, and the other node {mine}. "
        "Install the same release of rolecall on both"
    )
