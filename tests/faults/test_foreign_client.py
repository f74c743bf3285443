"""A client that was written by the documentation alone talks to a live node: calls, pieces, streams, errors, a cut."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

import rolecall as rc

ROOT = Path(__file__).parents[2]
CLIENT = Path(__file__).with_name("foreign_client.py")


class Doubler(rc.Role):
    def __init__(self) -> None:
        self.doubled = 0

    @rc.service
    async def double(self, values: np.ndarray) -> np.ndarray:
        self.doubled += 1
        return 2 * values

    @rc.stream
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @rc.service
    async def fail(self) -> None:
        raise ValueError("no such thing")


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the stock compiler has put its code for grpcio."""
    folder, protos = tmp_path_factory.mktemp("stock"), ROOT / "protos"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", f"--python_out={folder}"]
    subprocess.run([*command, f"--grpc_python_out={folder}", str(protos / "rolecall/v1/link.proto")], check=True)
    for package in ("rolecall", "rolecall/v1"):  # before the installed package of that name
        (folder / package / "__init__.py").touch()
    return folder


@pytest.mark.timeout(60)
async def test_a_client_written_by_the_documentation_is_a_peer(cluster, stock: Path) -> None:
    from .conftest import SECRET

    async with cluster("a") as c:
        doubler = await c.role("a/doubler", Doubler)
        c.nodes["a"].network.bind(rc.RoleId("x/probe"), "x")
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(CLIENT), str(stock), c.links["a"].exchange.me.address, SECRET.hex(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        output, errors = await process.communicate()
        assert output == b"fine\n", errors.decode()
        assert doubler.doubled == 5
        assert [(node, peer) for node, peer, _ in c.lost] == [("a", "x")]
        assert "that was all" in c.lost[0][2]
