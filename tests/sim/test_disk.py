"""A disk that may be full."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import anyio
import numpy as np
import pytest

import rolecall as rc
from rolecall.core.ids import RoleId
from rolecall.core.records import DeadLetter, Record
from rolecall.sim.devices import Device, DeviceProfile, ModelledComputing
from rolecall.sim.disk import Disk
from rolecall.sim.loop import VirtualLoop
from rolecall.sim.simulate import simulate


def test_a_disk_has_room_until_it_is_full() -> None:
    disk = Disk()
    disk.charge(1_000)
    disk.limit(10)
    disk.charge(6)
    with pytest.raises(OSError, match="No space left on device") as caught:
        disk.charge(5)
    assert caught.value.errno == errno.ENOSPC
    disk.charge(4)
    disk.limit(None)
    disk.charge(1_000)
    assert disk.written_bytes == 2_010


def test_an_element_is_not_saved_on_a_full_disk() -> None:
    async def main() -> None:
        disk, written, loop = Disk(), list[np.ndarray](), asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        work = ModelledComputing(Device(DeviceProfile(flops_per_s=1e9)), loop, "a", disk)
        disk.limit(100)
        await work.save(RoleId("a/x"), written.append, (np.zeros(4),))
        with pytest.raises(OSError, match="No space left"):
            await work.save(RoleId("a/x"), written.append, (np.zeros(400),))
        assert [array.size for array in written] == [4]

    simulate(main)


class Keeper(rc.Role):
    """Has about 8,000 bytes that are saved when it ends."""

    values: np.ndarray = rc.element()

    async def main(self) -> None:
        await anyio.sleep(2)


@pytest.mark.simulation
@pytest.mark.parametrize("device", [None, "edge"])
@pytest.mark.parametrize(("free_bytes", "is_saved"), [(7_000, False), (9_000, True)])
async def test_an_element_of_a_run_is_saved_where_there_is_room(
    tmp_path: Path, device: str | None, free_bytes: int, is_saved: bool
) -> None:
    file = tmp_path / "values"
    file.unlink(missing_ok=True)
    values = rc.ElementSpec(factory=np.zeros, options={"shape": 1_000}, save=str(file))
    roles = {"a": {"keeper": rc.RoleSpec(Keeper, elements={"values": values})}}
    told: list[Record] = []
    app = rc.App(name="keeping", nodes={"a": rc.Node(device=device)}, roles=roles)
    async with rc.simulation(app, observers=[told.append]) as sim:
        sim.at(1.0).disk_full("a", free_bytes=free_bytes)
        await sim.finished()
    letters = [(letter.role, letter.channel) for letter in told if isinstance(letter, DeadLetter)]
    assert file.exists() == is_saved
    assert letters == ([] if is_saved else [("a/keeper", "values")])
