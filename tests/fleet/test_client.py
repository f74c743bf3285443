"""Looking after nodes from outside: the client, the service, and the port on loopback, with real nodes behind it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from rolecall.core.errors import ConfigError, DeadlineExceeded, RolecallError
from rolecall.fleet.client import Client, manage
from rolecall.fleet.deployment import Deployment
from rolecall.wire.peers import LinkRefused, Unreachable
from rolecall.wire.security import new_secret

from .served import served


@asynccontextmanager
async def connected(deployed: Deployment) -> AsyncIterator[Client]:
    async with served(deployed) as (_, address, secret), manage(address, secret=secret) as client:
        yield client


async def test_who_is_there_and_what_runs(deployed: Deployment) -> None:
    async with connected(deployed) as client:
        assert client.nodes == ["n1", "n2"]
        assert client.application == "adding"
        status = await client.status("n2")
        assert (status.node, status.application) == ("n2", "adding")
        assert [(role.role, role.class_path, role.status) for role in status.roles] == [
            ("n2/node", "rolecall.fleet.node_role:NodeRole", "ready"),
            ("n2/adder", "managed_roles:Adder", "ready"),
        ]
        assert [role.role for role in (await client.status("n1", "*/adder")).roles] == ["n1/adder"]
        with pytest.raises(ConfigError, match=r"node 'n3': there is no such node. The nodes are: n1, n2"):
            await client.status("n3")
        with pytest.raises(ConfigError, match="Say which node; there are 2: n1, n2"):
            await client.status()


async def test_roles_are_called_with_plain_values(deployed: Deployment) -> None:
    async with connected(deployed) as client:
        assert await client.call("n1/adder", "add", {"numbers": [1, 2]}) == 3
        assert await client.call("n1/adder", "add", {"numbers": [4]}) == 7
        assert await client.call("n2/adder", "add", {"numbers": []}) == 0
        assert await client.call("n1/adder", "norm", {"point": {"x": 3, "y": 4.0}}) == 5.0
        assert await client.call("n1/adder", "weights", {"size": 1000}) == {"all": {"w": "float32 [1000]"}}


@pytest.mark.parametrize(
    ("role", "channel", "arguments", "problem"),
    [
        ("n1/adder", "ad", {}, r"'ad' is not a channel of n1/adder .*Did you mean 'add'\?"),
        ("n1/ader", "add", {}, r"There is no role 'n1/ader'. Did you mean 'n1/adder'\?"),
        ("n9/adder", "add", {}, "node 'n9': there is no such node"),
        ("n1/adder", "add", {}, "argument 'numbers' is missing"),
        ("n1/adder", "add", {"numbers": ["a"]}, "expected int, found str"),
        ("n1/adder", "norm", {"point": {"z": 1}}, "x"),
        ("n1/adder", "secret", {}, "n1/node may not call n1/adder.secret"),
        ("n1/adder", "count", {}, "stream"),
    ],
)
async def test_a_call_that_cannot_be_made_says_why(
    deployed: Deployment, role: str, channel: str, arguments: Any, problem: str
) -> None:
    async with connected(deployed) as client:
        with pytest.raises(ConfigError, match=problem):
            await client.call(role, channel, arguments)


async def test_streams_are_read(deployed: Deployment) -> None:
    async with connected(deployed) as client:
        assert [item async for item in client.stream("n1/adder", "count", {"to": 3})] == [1, 2, 3]
        assert [item async for item in client.stream("n1/adder", "add", {"numbers": [1]})] == [1]
        endless = client.stream("n1/adder", "count", {"to": 6})
        assert [await anext(endless) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
        await endless.aclose()
        assert [item async for item in client.stream("n1/adder", "count")] == [1]  # the one before has made way
        with pytest.raises(DeadlineExceeded, match=r"n1/adder.count did not answer within 0.05 s"):
            _ = [item async for item in client.stream("n1/adder", "count", {"to": 6}, deadline_s=0.05)]
        with pytest.raises(RolecallError, match="ValueError: it went wrong"):
            await anext(client.stream("n1/adder", "fail"))
        with pytest.raises(ConfigError, match=r"Did you mean 'count'\?"):
            await anext(client.stream("n1/adder", "coun"))


async def test_roles_are_paused_and_resumed(deployed: Deployment) -> None:
    async def statuses() -> list[str]:
        return [role.status for node in client.nodes for role in (await client.status(node, "*/adder")).roles]

    async with connected(deployed) as client:
        assert await client.pause("*/adder") == ["n1/adder", "n2/adder"]
        assert await statuses() == ["paused", "paused"]
        with pytest.raises(DeadlineExceeded):
            await client.call("n1/adder", "add", {"numbers": [1]}, deadline_s=0.05)
        assert await client.resume("n1/adder") == ["n1/adder"]
        assert await statuses() == ["ready", "paused"]
        assert await client.call("n1/adder", "add", {"numbers": [1]}) == 1
        with pytest.raises(ConfigError, match=r"There is no role '\*/ader'"):
            await client.pause("*/ader")


async def test_relationships_are_changed(deployed: Deployment) -> None:
    async def who() -> list[str]:
        return list(await client.call("n1/asker", "who"))

    async with connected(deployed) as client:
        asker = {"class": "managed_roles:Asker"}
        await client.assign("asker", asker, node="n1", relationships={"adders": ["n1/adder"]})
        await client.relate("n1/asker", "adders", ["n2/*"])
        assert await who() == ["n2/adder"]
        await client.relate("n1/asker", "adders", ["n1/adder"], how="add")
        assert await who() == ["n2/adder", "n1/adder"]
        await client.relate("n1/asker", "adders", ["n2/*"], how="remove")
        assert await who() == ["n1/adder"]
        await client.relate("n1", "others", ["n2/adder"])
        await client.alias("n1/asker", "adders", "others")
        assert await who() == ["n2/adder"]
        await client.relate("n1/asker", "adders", [])
        assert await who() == []
        for call, problem in (
            (client.relate("n1/asker", "adders", ["n2"]), "expected node/role"),
            (client.relate("n1/aker", "adders", []), r"Did you mean 'n1/asker'\?"),
            (client.relate("n1/asker", "adders", [], how="ad"), r"Did you mean 'add'\?"),
            (client.alias("n1/asker", "adders", "other"), "other"),
        ):
            with pytest.raises(ConfigError, match=problem):
                await call


async def test_errors_of_roles_and_deadlines_are_told(deployed: Deployment) -> None:
    async with connected(deployed) as client:
        with pytest.raises(RolecallError, match="ValueError: it went wrong"):
            await client.call("n1/adder", "fail")
        with pytest.raises(DeadlineExceeded, match=r"n1/adder.wait did not answer within 0.01 s"):
            await client.call("n1/adder", "wait", deadline_s=0.01)
        assert await client.call("n1/adder", "add", {"numbers": [1]}) == 1


async def test_roles_are_assigned_and_stopped(deployed: Deployment) -> None:
    async with connected(deployed) as client:
        adder = {"class": "managed_roles:Adder", "options": {"start": 10}}
        assert await client.assign("more", adder, node="n2") == "n2/more"
        assert await client.call("n2/more", "add", {"numbers": [1]}) == 11
        asker = {"class": "managed_roles:Asker"}
        assert await client.assign("asker", asker, node="n1", relationships={"adders": ["*/adder", "n2/more"]})
        assert await client.call("n1/asker", "who") == ["n1/adder", "n2/adder", "n2/more"]
        assert await client.stop("*/adder") == ["n1/adder", "n2/adder"]
        assert await client.call("n1/asker", "who") == ["n2/more"]
        assert await client.stop("n2/more") == ["n2/more"]
        assert [role.role for role in (await client.status("n2")).ended] == ["n2/adder", "n2/more"]
        with pytest.raises(ConfigError, match=r"There is no role '\*/adder'"):
            await client.stop("*/adder")


@pytest.mark.parametrize(
    ("role", "problem"),
    [
        ({"class": "managed_roles:Ader"}, "Did you mean 'Adder'"),
        ({"clas": "managed_roles:Adder"}, "role 'x'.*clas"),
        ({"class": "managed_roles:Adder", "options": {"begin": 1}}, "begin"),
    ],
)
async def test_a_role_that_cannot_be_assigned_says_why(deployed: Deployment, role: Any, problem: str) -> None:
    async with connected(deployed) as client:
        with pytest.raises(ConfigError, match=problem):
            await client.assign("x", role, node="n1")
        assert [role.role for role in (await client.status("n1")).roles] == ["n1/node", "n1/adder"]


async def test_a_role_that_fails_in_setup_is_gone(deployed: Deployment) -> None:
    async with connected(deployed) as client:
        with pytest.raises(RolecallError, match="no setup today"):
            await client.assign("x", {"class": "managed_roles:Broken"}, node="n1")
        assert [(role.role, role.status) for role in (await client.status("n1")).ended] == [("n1/x", "failed")]


async def test_the_log_is_read_and_followed(deployed: Deployment) -> None:
    async with connected(deployed) as client:
        await client.call("n1/adder", "add", {"numbers": [3]})
        await client.call("n2/adder", "add", {"numbers": [4]})
        lines = [(line.source, line.text) async for line in client.logs("n1")]
        assert lines == [("n1/adder", "sum=3")]
        following = client.logs("*/adder", past=1, follow=True)
        assert (await anext(following)).text == "sum=4"
        await client.call("n1/adder", "add", {"numbers": [5]})
        assert (await anext(following)).text == "sum=8"
        await following.aclose()
        with pytest.raises(ConfigError, match=r"There is no level 'warn'. Did you mean 'warning'"):
            await anext(client.logs(level="warn"))


async def test_stopping_everything_is_asked_for(deployed: Deployment) -> None:
    async with served(deployed) as (management, address, secret), manage(address, secret=secret) as client:
        assert await client.stop() == []
        assert management.stop.is_set()


async def test_who_does_not_know_the_secret_is_refused(deployed: Deployment) -> None:
    denied: list[dict[str, Any]] = []
    async with served(deployed) as (management, address, _):
        management.audit = lambda event, **what: denied.append({"event": event, **what})
        with pytest.raises(LinkRefused, match="another secret"):
            async with manage(address, secret=new_secret()):
                pass
        async with manage(address) as client:
            with pytest.raises(RolecallError, match="no valid 'rolecall-proof'"):
                await client.status("n1")
    assert [(what["event"], what["who"][:10]) for what in denied] == [("deny", "127.0.0.1:")]


async def test_nobody_is_there_any_more(deployed: Deployment) -> None:
    async with served(deployed) as (_, address, secret):
        pass
    with pytest.raises(Unreachable, match="no node could be reached"):
        async with manage(address, secret=secret):
            pass


async def test_a_service_that_goes_away_is_noticed(deployed: Deployment) -> None:
    async with AsyncExitStack() as stack:
        async with served(deployed) as (_, address, secret):
            client = await stack.enter_async_context(manage(address, secret=secret))
        with pytest.raises(Unreachable, match="the connection ended"):
            await client.status("n1")


def test_it_takes_no_time_until_somebody_comes() -> None:
    """What opens the port imports neither gRPC nor betterproto."""
    code = "import sys, rolecall.fleet.gate; print(*[n for n in ('grpclib', 'betterproto') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
