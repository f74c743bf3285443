"""An organizer: puts clients into groups whose data, taken together, look alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

import rolecall as rc
from rolecall.architectures.roles.testing import DataReport, Loader
from rolecall.core.errors import ConfigError

__all__ = ("Organizer", "balanced")


class Organizer(rc.Role):
    """Groups the clients by the labels they hold, so that the mix of each group is near to that of all.

    The clients need the extension `Loader`. What it returns is a proposal: coordinators act on it.
    """

    clients: rc.Group[Loader] = rc.many("trainers")

    @rc.service
    async def organize(self, groups: int) -> list[list[rc.RoleId]]:
        """Return the clients in `groups` groups of equal numbers (give or take one)."""
        reports = await self.clients.call(Loader.describe)
        roles = list(reports)
        return [[roles[at] for at in group] for group in balanced(list(reports.values()), groups)]


def balanced(reports: Sequence[DataReport], groups: int) -> list[list[int]]:
    """Return positions of `reports` in groups: largest first, each to where it brings the mix nearest to that of all.

    Raises `ConfigError` for fewer clients than groups.
    """
    if not 1 <= groups <= len(reports):
        raise ConfigError("Organizer", f"{groups} groups of {len(reports)} clients", hint="Give each group a client")
    counts = _counts(reports)
    wanted = counts.sum(axis=0) / max(1.0, counts.sum())
    room = [len(part) for part in np.array_split(np.arange(len(reports)), groups)]
    members: list[list[int]] = [[] for _ in range(groups)]
    for at in sorted(range(len(reports)), key=lambda at: (-counts[at].sum(), at)):
        free = [group for group in range(groups) if len(members[group]) < room[group]]
        members[min(free, key=lambda group: _gain(counts, members[group], at, wanted))].append(at)
    return [sorted(group) for group in members]


def _gain(counts: npt.NDArray[np.float64], group: list[int], at: int, wanted: npt.NDArray[np.float64]) -> float:
    """Return by how much a client changes the distance of a group's mix from the wanted one."""
    return _distance(counts[[*group, at]], wanted) - _distance(counts[group], wanted)


def _distance(counts: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> float:
    total = counts.sum()
    return float(np.abs(counts.sum(axis=0) / total - wanted).sum()) if total else 2.0


def _counts(reports: Sequence[DataReport]) -> npt.NDArray[np.float64]:
    classes = max((len(report.labels) for report in reports), default=0)
    counts = np.zeros((len(reports), max(1, classes)))
    for row, report in zip(counts, reports, strict=True):
        row[: len(report.labels)] = report.labels or [report.samples]
    return counts
