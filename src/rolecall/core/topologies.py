"""Who is whose neighbour: the graphs that decentralised learning runs on, by name.

========================  ================================================================================
`complete`                everybody with everybody
`ring`                    everybody with the one before and the one after, the last with the first
`line`                    a ring that is cut between the last and the first
`star`, `star(NAME)`      everybody with the first member, or with the one named
`grid`                    rows and columns as square as the number allows, the last row possibly shorter
`regular(K)`              a random graph in which everybody has K neighbours
`small-world(K, P)`       Watts-Strogatz: a ring with K neighbours each, edges rewired with probability P
`random(P)`               Erdos-Renyi: every pair with probability P
`file(PATH)`              the edges in a text file, two names a line, `#` begins a comment
========================  ================================================================================

Edges have no direction. The random graphs are drawn until they are connected, and are the same for the same
seed and the same members, whatever order these came in.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rolecall.core.errors import ConfigError, nearest
from rolecall.core.patterns import natural_key

if TYPE_CHECKING:
    import networkx

__all__ = ("check", "neighbours", "topologies")

Edges = Iterable[tuple[str, str]]

_TRIES = 200  # draws of a random graph before it is called too sparse to be connected
_FILE_BYTES = 64 * 2**20


class _Spec(NamedTuple):
    """A topology's name and arguments, as they were written."""

    text: str
    name: str
    arguments: tuple[str, ...]

    def error(self, problem: str, hint: str = "") -> ConfigError:
        return ConfigError(f"topology {self.text!r}", problem, hint=hint)

    def whole(self, index: int, what: str) -> int:
        text = self.arguments[index]
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise self.error(f"{what} is {text!r}, expected a whole number")
        return int(text)

    def probability(self, index: int) -> float:
        try:
            value = float(self.arguments[index])
        except ValueError:
            value = math.nan
        if not 0.0 <= value <= 1.0:
            raise self.error(f"the probability is {self.arguments[index]!r}, expected a number from 0 to 1")
        return value


class _Kind(NamedTuple):
    """A topology: how it is written, how many arguments it takes, and what draws its edges."""

    form: str
    counts: tuple[int, ...]
    edges: Callable[[_Spec, Sequence[str], random.Random], Edges]


def topologies() -> list[str]:
    """Return the forms in which a topology can be written, such as `regular(K)`."""
    return [kind.form for kind in _KINDS.values()]


def check(spec: str) -> None:
    """Raise `ConfigError` when `spec` is no topology, whoever its members may be."""
    parsed = _parsed(spec)
    for index, argument in enumerate(_KINDS[parsed.name].form.partition("(")[2].rstrip(")").split(", ")):
        if argument == "K" and parsed.whole(index, "the number of neighbours") < 1:
            raise parsed.error("everybody needs at least one neighbour")
        if argument == "P":
            parsed.probability(index)


def neighbours(spec: str, members: Sequence[str], seed: int = 0) -> dict[str, list[str]]:
    """Return the neighbours of each member in the topology `spec`, members and neighbours in natural order.

    `members` are role ids or node names, in any order; a member alone, or in a file that does not name it,
    has no neighbours. The lists are the caller's own. Raises `ConfigError` for a specification that is
    unknown or that cannot be met by that many members.
    """
    ordered = tuple(sorted(set(members), key=natural_key))
    return {member: list(others) for member, others in _graph(spec, ordered, seed).items()}


@lru_cache(maxsize=64)
def _graph(text: str, members: tuple[str, ...], seed: int) -> dict[str, list[str]]:
    """Draw the graph; kept, because every member of a group asks for the same one."""
    check(text)
    spec = _parsed(text)
    digest = blake2b(f"{seed}/{text}".encode(), digest_size=8).digest()
    found: dict[str, set[str]] = {member: set() for member in members}
    if len(members) > 1:
        for one, other in _KINDS[spec.name].edges(spec, members, random.Random(int.from_bytes(digest, "big"))):
            found[one].add(other)
            found[other].add(one)
    return {member: sorted(others - {member}, key=natural_key) for member, others in found.items()}


def _parsed(text: str) -> _Spec:
    name, opened, rest = str(text).strip().partition("(")
    if opened and not rest.endswith(")"):
        raise ConfigError(f"topology {text!r}", "the closing parenthesis is missing")
    spec = _Spec(text, name.strip(), tuple(item.strip() for item in rest[:-1].split(",")) if opened else ())
    kind = _KINDS.get(spec.name)
    if kind is None:
        raise spec.error("there is no such topology", f"{nearest(spec.name, _KINDS)} There are {_listed()}")
    if len(spec.arguments) not in kind.counts or "" in spec.arguments:
        raise spec.error(f"{len(spec.arguments)} arguments were given", f"It is written {kind.form}")
    return spec


def _listed() -> str:
    return ", ".join(topologies())


# -------------------------------------------------------------------------------------------- fixed graphs


def _complete(spec: _Spec, members: Sequence[str], rng: random.Random) -> Edges:
    return ((one, other) for index, one in enumerate(members) for other in members[index + 1 :])


def _line(spec: _Spec, members: Sequence[str], rng: random.Random) -> Edges:
    return itertools.pairwise(members)


def _ring(spec: _Spec, members: Sequence[str], rng: random.Random) -> Edges:
    return [*_line(spec, members, rng), (members[-1], members[0])]


def _star(spec: _Spec, members: Sequence[str], rng: random.Random) -> Edges:
    hub = _member(spec, spec.arguments[0], members) if spec.arguments else members[0]
    if hub is None:
        raise spec.error("its centre is not among the members", nearest(spec.arguments[0], members))
    return ((hub, member) for member in members if member != hub)


def _grid(spec: _Spec, members: Sequence[str], rng: random.Random) -> Edges:
    columns = math.ceil(len(members) / math.isqrt(len(members)))
    across = ((i, i + 1) for i in range(len(members) - 1) if (i + 1) % columns)
    down = ((i, i + columns) for i in range(len(members) - columns))
    return [(members[one], members[other]) for one, other in (*across, *down)]


# ------------------------------------------------------------------------------------------- random graphs


def _regular(spec: _Spec, members: Sequence[str], rng: random.Random) -> Edges:
    import networkx

    degree, size = spec.whole(0, "the number of neighbours"), len(members)
    if degree >= size:
        raise spec.error(f"{size} members cannot have {degree} neighbours each", f"Use at most {size - 1}")
    if degree * size % 2:
        raise spec.error(
            f"no graph gives {size} members {degree} neighbours each: one of the two numbers must be even",
            f"Use regular({degree + 1})" if degree + 1 < size else f"Use regular({degree - 1})",
        )
    if degree == 1 and size > 2:
        raise spec.error("with one neighbour each, the graph falls into pairs", "Use regular(2) or ring")
    return _connected(spec, members, lambda: networkx.random_regular_graph(degree, size, seed=rng))


def _small_world(spec: _Spec, members: Sequence[str], rng: random.Random) -> Edges:
    import networkx

    degree, size = spec.whole(0, "the number of neighbours"), len(members)
    if degree % 2 or not 2 <= degree < size:
        raise spec.error(
            f"{size} members cannot begin with {degree} neighbours each",
            f"Use an even number, at least 2 and less than the {size} members",
        )
    chance = spec.probability(1)
    return _connected(spec, members, lambda: networkx.watts_strogatz_graph(size, degree, chance, seed=rng))


def _random(spec: _Spec, members: Sequence[str], rng: random.Random) -> Edges:
    import networkx

    chance, size = spec.probability(0), len(members)
    return _connected(spec, members, lambda: networkx.fast_gnp_random_graph(size, chance, seed=rng))


def _connected(spec: _Spec, members: Sequence[str], draw: Callable[[], networkx.Graph[int]]) -> Edges:
    """Draw until every member can reach every other: a graph in pieces would learn as many models."""
    import networkx

    for _ in range(_TRIES):
        graph = draw()
        if networkx.is_connected(graph):
            return [(members[one], members[other]) for one, other in graph.edges]
    raise spec.error(
        f"in {_TRIES} draws, no graph connected all {len(members)} members",
        f"Give them more edges; P above {math.log(len(members)) / len(members):.2g} is likely to do",
    )


# --------------------------------------------------------------------------------------------------- files


def _file(spec: _Spec, members: Sequence[str], rng: random.Random) -> Edges:
    return [
        (one, other)
        for first, second in _pairs(spec, Path(spec.arguments[0]))
        if (one := _member(spec, first, members)) and (other := _member(spec, second, members))
    ]


def _pairs(spec: _Spec, path: Path) -> list[tuple[str, str]]:
    """Read the edges; those of members who are not there (yet) are kept, since members come and go."""
    try:
        if path.stat().st_size > _FILE_BYTES:
            raise spec.error(f"the file is larger than {_FILE_BYTES:,} bytes")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise spec.error(f"the file cannot be read: {error}") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        names = line.partition("#")[0].split()
        if len(names) == 2:
            pairs.append((names[0], names[1]))
        elif names:
            raise ConfigError(f"{path}:{number}", f"found {len(names)} names, expected two", hint="One edge a line")
    return pairs


def _member(spec: _Spec, name: str, members: Sequence[str]) -> str | None:
    """Return the member of that name, or the only one on the node of that name, or nothing."""
    if name in members:
        return name
    there = [member for member in members if member.partition("/")[0] == name]
    if len(there) > 1:
        raise spec.error(f"{name!r} could be {' or '.join(there[:3])}", "Write the role's full name")
    return there[0] if there else None


_KINDS = {
    "complete": _Kind("complete", (0,), _complete),
    "ring": _Kind("ring", (0,), _ring),
    "line": _Kind("line", (0,), _line),
    "star": _Kind("star(NAME)", (0, 1), _star),
    "grid": _Kind("grid", (0,), _grid),
    "regular": _Kind("regular(K)", (1,), _regular),
    "small-world": _Kind("small-world(K, P)", (2,), _small_world),
    "random": _Kind("random(P)", (1,), _random),
    "file": _Kind("file(PATH)", (1,), _file),
}
