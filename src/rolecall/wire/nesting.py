"""How deep a MessagePack value is nested, found out from its bytes before anything is built from them."""

from __future__ import annotations

from collections.abc import Callable

from rolecall.wire.limits import Limits

__all__ = ("check_depth",)

_CONTAINERS = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])

_LEAVES = frozenset(range(0x100)) - frozenset(_CONTAINERS)


def check_depth(packed: bytes | memoryview, limits: Limits) -> None:
    """Raise `LimitExceeded` if `packed` is nested more than `limits.depth` deep.

    Bytes that are not MessagePack pass: whoever decodes them finds that out.
    """
    if len(packed) <= limits.depth or packed[0] in _LEAVES:
        return  # each level costs a byte
    data = bytes(packed)
    # Each level costs a byte of this kind, so that few of them settle it.
    if len(data) - len(data.translate(None, _CONTAINERS)) > limits.depth:
        _walk(data, limits)


def _walk(data: bytes, limits: Limits) -> None:
    unfinished: list[int] = []  # how many items each open container still lacks
    position, end = 0, len(data)
    while position < end:
        items, position = _STEPS[data[position]](data, position)
        if unfinished:
            unfinished[-1] -= 1
        if items:
            unfinished.append(items)
            limits.check("depth", len(unfinished))
        while unfinished and not unfinished[-1]:
            unfinished.pop()


_Step = Callable[[bytes, int], tuple[int, int]]
"""From the position of a token to the number of items it announces, and the position after it."""


def _scalar(size: int) -> _Step:
    return lambda _, position: (0, position + size)


def _sized(width: int, extra: int) -> _Step:
    """A token whose length is in the `width` bytes after its first, such as a long string."""
    return lambda data, at: (0, at + 1 + width + extra + int.from_bytes(data[at + 1 : at + 1 + width]))


def _small_container(items: int) -> _Step:
    return lambda _, position: (items, position + 1)


def _container(width: int, items_each: int) -> _Step:
    return lambda data, at: (items_each * int.from_bytes(data[at + 1 : at + 1 + width]), at + 1 + width)


def _step(first: int) -> _Step:
    if 0x80 <= first <= 0x8F:
        return _small_container(2 * (first & 0x0F))
    if 0x90 <= first <= 0x9F:
        return _small_container(first & 0x0F)
    if 0xA0 <= first <= 0xBF:
        return _scalar(1 + (first & 0x1F))
    return _LONG.get(first, _scalar(1))


_LONG: dict[int, _Step] = {
    **{0xC4 + i: _sized(1 << i, 0) for i in range(3)},  # bin 8, 16, 32
    **{0xC7 + i: _sized(1 << i, 1) for i in range(3)},  # ext 8, 16, 32
    0xCA: _scalar(5),  # float 32
    0xCB: _scalar(9),  # float 64
    **{0xCC + i: _scalar(1 + (1 << i)) for i in range(4)},  # uint 8 to 64
    **{0xD0 + i: _scalar(1 + (1 << i)) for i in range(4)},  # int 8 to 64
    **{0xD4 + i: _scalar(2 + (1 << i)) for i in range(5)},  # fixext 1 to 16
    **{0xD9 + i: _sized(1 << i, 0) for i in range(3)},  # str 8, 16, 32
    0xDC: _container(2, 1),
    0xDD: _container(4, 1),
    0xDE: _container(2, 2),
    0xDF: _container(4, 2),
}
_STEPS = [_step(first) for first in range(256)]
