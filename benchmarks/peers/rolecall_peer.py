"""rolecall itself."""

from __future__ import annotations

from typing import ClassVar


class RolecallPeer:
    """An application of one node, run once for each workload; a driver role does the timing."""

    name = "rolecall"
    idioms: ClassVar[dict[str, str]] = {}

    def open(self) -> None:
        """Nothing runs between two workloads."""
        raise ImportError("its runtime is not here yet")

    def rounds(self, workload: str, operations: int, rounds: int) -> list[float]:
        """Run an application whose driver times the workload."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing runs between two workloads."""
