"""Nothing blocks the event loop: neither the runtime nor the roles that come with it.

Every coroutine test runs under blockbuster (see `conftest.py`). Here it is shown to bite, and to spare what
is in order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from blockbuster import BlockingError

import rolecall as rc


class Sleeper(rc.Role):
    """Blocks its loop in the handler, or only a worker thread."""

    @rc.service
    async def block(self) -> None:
        time.sleep(0.0001)  # noqa: ASYNC251 - the mistake to be found

    @rc.service
    async def work(self) -> str:
        await self.compute(time.sleep, 0.0001)
        return "done"


def application(channel: str) -> rc.App:
    return rc.App(
        name="sleeper",
        nodes={"here": rc.Node()},
        roles={"here": {"sleeper": rc.RoleSpec(Sleeper)}},
        start=f"here/sleeper.{channel}",
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


async def test_a_handler_that_blocks_the_loop_is_found() -> None:
    with pytest.raises(rc.ApplicationFailed) as raised:
        await rc.run(application("block"))
    assert any(isinstance(cause, BlockingError) for cause in causes(raised.value))


async def test_a_handler_that_blocks_a_worker_thread_is_not_at_fault() -> None:
    history = await rc.run(application("work"))
    assert list(history.returned.values()) == ["done"]


@pytest.fixture
def averaging() -> rc.App:
    """Return federated averaging; made before the loop runs, since the model is."""
    from rolecall.architectures import fedavg
    from rolecall.learn.models import MLP

    return fedavg.app(MLP(hidden=8), "digits", clients=2, rounds=1)


async def test_federated_averaging_does_not_block_the_loop(averaging: rc.App) -> None:
    history = await rc.run(averaging, checked=True)
    assert history.status == "ok"
