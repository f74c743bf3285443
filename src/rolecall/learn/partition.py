"""How the samples of a data set are dealt to clients: evenly, by label, by Dirichlet draws, by size."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rolecall.core.errors import ConfigError, nearest
from rolecall.learn.batches import Indices

__all__ = ("partition",)

_FORM = re.compile(r"\s*([a-z][a-z-]{0,30})\s*(?:\(([^()]{0,100000})\))?\s*")
_Labels: TypeAlias = npt.NDArray[Any]
_Scheme: TypeAlias = Callable[[str, list[str], _Labels, int, np.random.Generator], list[Indices]]


def partition(
    scheme: str, labels: npt.ArrayLike, parts: int, seed: int = 0, *, users: npt.ArrayLike | None = None
) -> list[Indices]:
    """Return, for each of `parts` clients, the sorted indices of the samples it holds.

    The parts are disjoint, none is empty, and together they hold every sample (except with `sizes`). `scheme`
    is

    - `iid`: shuffled and cut into parts of equal size (give or take one);
    - `shards(k)`: sorted by label, cut into `k` shards a client, `k` of them dealt to each (McMahan et al.
      2017);
    - `dirichlet(alpha)`: each label's samples divided in proportions drawn from a symmetric Dirichlet
      distribution (Hsu et al. 2019): small `alpha`, few labels a client. A part that would come out empty
      takes a sample from the largest; `dirichlet(alpha, n)` lets every part have at least `n`;
    - `sizes(a, b, ...)`: shuffled, the first `a` samples to the first client, and so on;
    - `users`: whole users, whose samples stay together, shuffled and dealt in parts of equal numbers of users;
      `users` says whose each sample is.

    Raises `ConfigError` for another scheme, for arguments that cannot be, and for fewer samples than parts.
    """
    where = f"partition {scheme!r}"
    name, arguments = _parsed(where, scheme)
    values = np.asarray(labels)
    if parts < 1:
        raise ConfigError(where, f"into {parts} parts", hint="Give at least one part")
    if len(values) < parts:
        raise ConfigError(where, f"{len(values)} samples are too few for {parts} parts")
    rng = np.random.default_rng([seed % 2**64, parts])
    if name == "users":
        found = _by_user(where, arguments, values, parts, rng, users)
    else:
        found = _SCHEMES[name](where, arguments, values, parts, rng)
    return [np.sort(part) for part in found]


def _parsed(where: str, scheme: str) -> tuple[str, list[str]]:
    match = _FORM.fullmatch(scheme)
    name = match[1] if match else scheme
    if match is None or name not in (*_SCHEMES, "users"):
        known = "iid, shards(k), dirichlet(alpha), sizes(a, b, ...), users"
        raise ConfigError(
            where, "there is no such scheme", hint=f"Known are {known}.{nearest(name, (*_SCHEMES, 'users'))}"
        )
    return name, [part.strip() for part in match[2].split(",")] if match[2] and match[2].strip() else []


def _iid(where: str, arguments: list[str], labels: _Labels, parts: int, rng: np.random.Generator) -> list[Indices]:
    _expect(where, arguments, 0, 0, "iid")
    return np.array_split(rng.permutation(len(labels)), parts)


def _shards(where: str, arguments: list[str], labels: _Labels, parts: int, rng: np.random.Generator) -> list[Indices]:
    _expect(where, arguments, 1, 1, "shards(2)")
    each = _whole(where, arguments[0])
    if parts * each > len(labels):
        raise ConfigError(where, f"{parts} parts of {each} shards are more than the {len(labels)} samples")
    shuffled = rng.permutation(len(labels))
    by_label = shuffled[np.argsort(_classes(where, labels)[shuffled], kind="stable")]
    shards = np.array_split(by_label, parts * each)
    dealt = rng.permutation(parts * each).reshape(parts, each)
    return [np.concatenate([shards[at] for at in row]) for row in dealt]


def _dirichlet(
    where: str, arguments: list[str], labels: _Labels, parts: int, rng: np.random.Generator
) -> list[Indices]:
    _expect(where, arguments, 1, 2, "dirichlet(0.5)")
    alpha = _positive(where, arguments[0])
    least = _whole(where, arguments[1]) if len(arguments) > 1 else 1
    if least * parts > len(labels):
        raise ConfigError(where, f"{parts} parts of at least {least} are more than the {len(labels)} samples")
    classes = _classes(where, labels)
    pieces: list[list[Indices]] = [[] for _ in range(parts)]
    for label in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == label))
        shares = np.cumsum(rng.dirichlet(np.full(parts, alpha)))[:-1]
        cuts = (shares * len(members)).round().astype(np.int64)
        for mine, piece in zip(pieces, np.split(members, cuts), strict=True):
            mine.append(piece)
    return _topped_up([np.concatenate(mine) for mine in pieces], least)


def _topped_up(parts: list[Indices], least: int) -> list[Indices]:
    """Move samples from the largest parts to those with fewer than `least`."""
    held = [part.tolist() for part in parts]
    for mine in held:
        while len(mine) < least:
            mine.append(max(held, key=len).pop())
    return [np.array(mine, np.int64) for mine in held]


def _sizes(where: str, arguments: list[str], labels: _Labels, parts: int, rng: np.random.Generator) -> list[Indices]:
    sizes = [_whole(where, argument) for argument in arguments]
    if len(sizes) != parts:
        raise ConfigError(where, f"{len(sizes)} sizes for {parts} parts", hint="Give one size for each part")
    if sum(sizes) > len(labels):
        raise ConfigError(where, f"{sum(sizes):,} samples asked for, {len(labels):,} there")
    return np.split(rng.permutation(len(labels)), np.cumsum(sizes))[:-1]


def _by_user(
    where: str,
    arguments: list[str],
    labels: _Labels,
    parts: int,
    rng: np.random.Generator,
    users: npt.ArrayLike | None,
) -> list[Indices]:
    _expect(where, arguments, 0, 0, "users")
    if users is None:
        hint = "Give the data set `users`, one for each sample"
        raise ConfigError(where, "the data set does not say whose its samples are", hint=hint)
    of = np.asarray(users)
    if of.shape != (len(labels),):
        raise ConfigError(where, f"users are {list(of.shape)} for {len(labels)} samples", hint="Give one for each")
    known = np.unique(of)
    if len(known) < parts:
        raise ConfigError(where, f"{len(known)} users are too few for {parts} parts")
    return [np.flatnonzero(np.isin(of, known[dealt])) for dealt in np.array_split(rng.permutation(len(known)), parts)]


_SCHEMES: dict[str, _Scheme] = {"iid": _iid, "shards": _shards, "dirichlet": _dirichlet, "sizes": _sizes}


def _expect(where: str, arguments: list[str], least: int, most: int, example: str) -> None:
    if not least <= len(arguments) <= most:
        raise ConfigError(where, f"{len(arguments)} arguments", hint=f"Write it as {example!r}")


def _whole(where: str, text: str) -> int:
    if not text.isdecimal() or len(text) > 12 or int(text) < 1:
        raise ConfigError(where, f"{text!r} is not a whole number of at least 1")
    return int(text)


def _positive(where: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 1e-3 <= number <= 1e6:
        raise ConfigError(where, f"alpha is {text!r}", hint="It is a number from 0.001 (few labels each) to 1e6 (even)")
    return number


def _classes(where: str, labels: _Labels) -> _Labels:
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise ConfigError(
            where,
            f"it needs one whole number a sample as label, found {labels.dtype} {list(labels.shape)}",
            hint="Use 'iid' or 'sizes(...)' for other targets",
        )
    return labels
