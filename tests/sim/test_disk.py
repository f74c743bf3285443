"""A disk that may be full."""

from __future__ import annotations

import asyncio
import errno

import numpy as np
import pytest

from rolecall.core.ids import RoleId
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
