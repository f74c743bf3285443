from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import anyio
import msgspec
import pytest

import rolecall as rc
from rolecall.runtime import checking


class Worker(rc.Role):
    def __init__(self, delay_s: float = 0.0, error: Exception | None = None) -> None:
        self.delay_s, self.error = delay_s, error
        self.gate = anyio.Event()
        self.ended: list[str] = []

    @rc.service(concurrent=True)
    async def work(self, amount: int = 1) -> str:
        """Answer after a while, or raise."""
        try:
            await anyio.sleep(self.delay_s)
            if self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("finished")
        return f"{self.id.name}:{amount}"

    @rc.task(concurrent=True)
    async def gated(self, params: rc.Tensors) -> float:
        await self.gate.wait()
        return params.norm()

    @rc.service
    async def plan(self, steps: list[int]) -> int:
        return sum(steps)

    @rc.service(allow="nobody")
    async def closed(self) -> None: ...


class Boss(rc.Role):
    workers: rc.Group[Worker] = rc.many()

    @rc.service
    async def nested(self) -> list[str]:
        return list((await self.workers.call(Worker.work)).values())


class Team:
    """A boss and workers on two nodes; a worker is a delay or an error."""

    def __init__(self, w: Any, *workers: float | Exception) -> None:
        self.w, self.given = w, workers

    async def __aenter__(self) -> Team:
        await self.w.__aenter__()
        self.workers = [await self.worker(number, given) for number, given in enumerate(self.given)]
        self.boss = await self.w.role("a/boss", Boss)
        return self

    async def worker(self, number: int, given: float | Exception) -> Worker:
        options = {"error": given} if isinstance(given, Exception) else {"delay_s": given}
        return await self.w.role(f"{'a' if number < 2 else 'b'}/w{number}", Worker, **options)

    async def __aexit__(self, *error: Any) -> None:
        await self.w.__aexit__(*error)


@pytest.fixture
def team(world) -> Any:
    return lambda *workers, checked=True: Team(world("a", "b", checked=checked, workers=("*/w*")), *workers)


# ---------------------------------------------------------------------------------------------- answers


@pytest.mark.virtual_time
@pytest.mark.parametrize("checked", [True, False])
async def test_answers_come_in_the_order_of_the_group(team, checked) -> None:
    async with team(3, 1, 2, checked=checked) as t:
        replies = await t.boss.workers.call(Worker.work, 7)
        assert dict(replies) == {"a/w0": "w0:7", "a/w1": "w1:7", "b/w2": "w2:7"}
        assert list(replies) == ["a/w0", "a/w1", "b/w2"] and len(replies) == 3
        assert (replies.failures, replies.late) == ({}, {})


@pytest.mark.virtual_time
async def test_answers_as_they_come(team) -> None:
    async with team(3, 1, 2) as t:
        came = [(who, answer) async for who, answer in t.boss.workers.call(Worker.work).as_completed()]
        assert came == [("a/w1", "w1:1"), ("b/w2", "w2:1"), ("a/w0", "w0:1")]


@pytest.mark.virtual_time
async def test_each_member_may_get_its_own_arguments(team) -> None:
    async with team(0, 1, 2) as t:
        plan = {"a/w0": 5, "a/w1": 6, "b/w2": 7}
        replies = await t.boss.workers.call_each(lambda who: Worker.work.bind(amount=plan[who]))
        assert list(replies.values()) == ["w0:5", "w1:6", "w2:7"]


async def test_a_channel_may_be_reached_through_a_function(team) -> None:
    async with team(0, 0) as t:
        assert list(await t.boss.workers.call(lambda worker: worker.work, 2)) == ["a/w0", "a/w1"]


async def test_an_empty_group_answers_with_nothing(team) -> None:
    async with team() as t:
        assert dict(await t.boss.workers.call(Worker.work)) == {}
        assert dict(await t.boss.workers.within(quorum=0.5, deadline_s=1).call(Worker.work)) == {}
        assert [who async for who, _ in t.boss.workers.call(Worker.work).as_completed()] == []


# ---------------------------------------------------------------------------------------------- failures


@pytest.mark.virtual_time
async def test_all_must_answer_unless_less_is_settled_for(team) -> None:
    async with team(1, ValueError("broken"), 500) as t:
        with pytest.raises(rc.QuorumMissed) as error:
            await t.boss.workers.call(Worker.work)
        assert str(error.value).startswith(
            "a/boss: workers.work: 0 of the 3 replies needed came in. a/w1: ValueError: broken"
        )
        assert {who: type(e) for who, e in error.value.failures.items()} == {"a/w1": ValueError}
        assert (error.value.needed, error.value.answered) == (3, 0)
        assert isinstance(error.value.__cause__, ValueError)
        await anyio.sleep(2)
        assert [worker.ended for worker in t.workers] == [["cancelled"], [], ["cancelled"]]


@pytest.mark.virtual_time
async def test_failures_are_kept_by_role_in_the_order_of_the_group(team) -> None:
    async with team(rc.Refused("busy"), 1, KeyError("lost"), 2) as t:
        replies = await t.boss.workers.within(quorum=2).call(Worker.work)
        assert list(replies) == ["a/w1", "b/w3"]
        assert [(who, type(error)) for who, error in replies.failures.items()] == [
            ("a/w0", rc.Refused),
            ("b/w2", KeyError),
        ]
        assert all(letter.kind != "service" for letter in t.w.letters)


@pytest.mark.virtual_time
async def test_a_member_that_ends_is_a_failure(team, settle) -> None:
    async with team(1, 500, 500) as t:
        async with anyio.create_task_group() as tasks:
            results: list[Any] = []

            async def call() -> None:
                results.append(await t.boss.workers.within(quorum=1, deadline_s=3).call(Worker.work))
                with pytest.raises(rc.QuorumMissed, match="a/w1: RoleLost"):
                    await group.call(Worker.work)

            group = t.boss.workers
            tasks.start_soon(call)
            await settle()
            await t.w.instance("a/w1").stop()
        assert isinstance(results[0].failures["a/w1"], rc.RoleLost)


@pytest.mark.virtual_time
@pytest.mark.parametrize("checked", [True, False])
async def test_a_mistake_in_the_call_is_raised_as_itself(team, checked) -> None:
    async with team(0, 0, checked=checked) as t:
        workers: Any = t.boss.workers
        with pytest.raises(rc.WrongArgument, match="argument 'amount' is str, not int"):
            await workers.call(Worker.work, "much")
        with pytest.raises(rc.WrongArgument, match="unexpected keyword argument 'speed'"):
            await workers.within(quorum=1).call(Worker.work, speed=3)
        with pytest.raises(rc.NotAllowed):
            await workers.call(Worker.closed)
        with pytest.raises(rc.NotAChannel):
            await workers.call(lambda worker: worker.nothing)
        with pytest.raises(rc.NotAChannel):
            await workers.call(Boss.nested)


async def test_an_argument_that_cannot_travel_is_raised_as_itself(team) -> None:
    async with team(0, 0) as t:
        steps: Any = [1, object()]
        with pytest.raises(rc.NotEncodable, match=r"argument 'steps' at \[1\]: a value of type object"):
            await t.boss.workers.call(Worker.plan, steps)


async def test_a_wrong_argument_for_one_member_is_a_failure_of_that_one(team) -> None:
    async with team(0, 0) as t:
        arguments: Any = {"a/w0": "much", "a/w1": 2}
        workers = t.boss.workers.within(quorum=1)
        replies = await workers.call_each(lambda who: Worker.work.bind(arguments[who]))
        assert isinstance(replies.failures["a/w0"], rc.WrongArgument)


# ---------------------------------------------------------------------------------------------- quorum


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("quorum", "answers"),
    [(2, 2), (1.0, 5), (0.8, 4), (0.5, 3), (0.01, 1), (5, 5)],
)
async def test_a_quorum_ends_the_wait(team, quorum, answers) -> None:
    async with team(1, 2, 3, 4, 5) as t:
        start = anyio.current_time()
        replies = await t.boss.workers.within(quorum=quorum).call(Worker.work)
        assert len(replies) == answers == anyio.current_time() - start
        assert replies.failures == {}


async def test_a_share_is_rounded_up_but_not_for_a_rounding_error(team) -> None:
    from rolecall.core.groups import Within

    assert [Within(0.07).needed(100), Within(0.7).needed(10), Within(0.29).needed(100)] == [7, 7, 29]
    assert [Within(0.5).needed(3), Within(0.34).needed(3), Within(1e-6).needed(3)] == [2, 2, 1]


@pytest.mark.virtual_time
async def test_a_quorum_that_cannot_be_reached_any_more_ends_the_wait(team) -> None:
    async with team(ValueError("one"), ValueError("two"), 500) as t:
        start = anyio.current_time()
        with pytest.raises(rc.QuorumMissed, match="0 of the 2 replies needed"):
            await t.boss.workers.within(quorum=2).call(Worker.work)
        assert anyio.current_time() == start


async def test_a_quorum_of_more_than_there_are_is_not_even_tried(team) -> None:
    async with team(0, 0) as t:
        with pytest.raises(rc.QuorumMissed, match=r"0 of the 3 replies needed came in. The group has too few members"):
            await t.boss.workers.within(quorum=3).call(Worker.work)
        assert [worker.ended for worker in t.workers] == [[], []]


@pytest.mark.parametrize(
    "options",
    [{"quorum": 0}, {"quorum": -1}, {"quorum": 0.0}, {"quorum": 1.5}, {"deadline_s": 0}, {"late": "later"}],
)
async def test_what_cannot_be_settled_for_is_refused(team, options) -> None:
    async with team(0) as t:
        with pytest.raises(ValueError, match=rf"within\({next(iter(options))}="):
            t.boss.workers.within(**options)


# ---------------------------------------------------------------------------------------------- deadline


@pytest.mark.virtual_time
async def test_a_deadline_ends_the_wait_with_what_is_there(team) -> None:
    async with team(1, 500, 2) as t:
        start = anyio.current_time()
        replies = await t.boss.workers.within(deadline_s=10).call(Worker.work)
        assert anyio.current_time() - start == pytest.approx(10)
        assert list(replies) == ["a/w0", "b/w2"]
        assert isinstance(replies.failures["a/w1"], rc.DeadlineExceeded)
        assert str(replies.failures["a/w1"]).startswith("a/w1.work did not answer within 10 s")
        await anyio.sleep(1)
        assert t.workers[1].ended == ["cancelled"]


@pytest.mark.virtual_time
async def test_a_deadline_with_nothing_there_misses(team) -> None:
    async with team(500, 500) as t:
        with pytest.raises(rc.QuorumMissed, match=r"0 of the 1 replies needed.*did not answer within 3 s"):
            await t.boss.workers.within(deadline_s=3).call(Worker.work)


@pytest.mark.virtual_time
async def test_quorum_and_deadline_whichever_comes_first(team) -> None:
    async with team(1, 5, 9) as t:
        within = t.boss.workers.within(quorum=2, deadline_s=6)
        assert len(await within.call(Worker.work)) == 2
        with pytest.raises(rc.QuorumMissed, match="1 of the 2 replies needed"):
            await t.boss.workers.within(quorum=2, deadline_s=3).call(Worker.work)


@pytest.mark.virtual_time
async def test_the_deadline_around_holds_for_the_group(team) -> None:
    async with team(1, 500) as t:
        start = anyio.current_time()
        with anyio.move_on_after(4) as scope:
            await t.boss.workers.within(deadline_s=100, late="keep").call(Worker.work)
        assert scope.cancelled_caught and anyio.current_time() - start == pytest.approx(4, abs=1.1)
        assert t.workers[1].ended == ["cancelled"]


# ---------------------------------------------------------------------------------------------- who is late


@pytest.mark.virtual_time
async def test_late_answers_can_be_kept(team) -> None:
    async with team(1, 5, 9) as t:
        group = t.boss.workers.within(quorum=1, late="keep")
        first = await group.call(Worker.work, 1)
        assert (list(first), first.late) == (["a/w0"], {})
        await anyio.sleep(6)
        second = await group.call(Worker.work, 2)
        assert second.late == {"a/w1": "w1:1"}
        await anyio.sleep(20)
        third = await group.call(Worker.work, 3)
        assert third.late == {"a/w1": "w1:2", "b/w2": "w2:2"}, "the newest of each, in the order of the group"
        assert [worker.ended[-1] for worker in t.workers] == ["finished"] * 3


@pytest.mark.virtual_time
async def test_late_answers_of_another_channel_are_not_mixed_in(team) -> None:
    async with team(1, 5) as t:
        await t.boss.workers.within(quorum=1, late="keep").call(Worker.work)
        await anyio.sleep(10)
        assert (await t.boss.workers.call(Worker.plan, [1])).late == {}
        assert (await t.boss.workers.call(Worker.work)).late == {"a/w1": "w1:1"}


@pytest.mark.virtual_time
async def test_late_answers_can_be_ignored_while_the_work_goes_on(team) -> None:
    async with team(1, 5) as t:
        await t.boss.workers.within(quorum=1, late="ignore").call(Worker.work)
        await anyio.sleep(10)
        assert t.workers[1].ended == ["finished"]
        assert (await t.boss.workers.call(Worker.work)).late == {}


@pytest.mark.virtual_time
@pytest.mark.parametrize("late", ["keep", "ignore"])
async def test_a_late_error_is_a_dead_letter(team, late) -> None:
    async with team(1, 5) as t:
        t.workers[1].error = ValueError("too late")
        await t.boss.workers.within(quorum=1, late=late).call(Worker.work)
        await anyio.sleep(10)
        [letter] = t.w.letters
        assert (letter.kind, letter.role) == ("late answer", "a/w1") and "too late" in letter.reason


@pytest.mark.virtual_time
async def test_those_who_are_late_are_cancelled_otherwise(team) -> None:
    async with team(1, 5) as t:
        await t.boss.workers.within(quorum=1).call(Worker.work)
        await anyio.sleep(10)
        assert t.workers[1].ended == ["cancelled"]
        assert t.w.letters == []


# ---------------------------------------------------------------------------------------------- leaving early


@pytest.mark.virtual_time
@pytest.mark.parametrize("late", ["cancel", "ignore", "keep"])
async def test_a_group_call_that_is_cancelled_cancels_its_calls(team, late) -> None:
    async with team(500, 500) as t:
        with anyio.move_on_after(1):
            await t.boss.workers.within(late=late).call(Worker.work)
        assert [worker.ended for worker in t.workers] == [["cancelled"], ["cancelled"]]


@pytest.mark.virtual_time
async def test_as_completed_that_is_cancelled_cancels_its_calls(team) -> None:
    async with team(1, 500) as t:
        with anyio.move_on_after(3):
            async for _ in t.boss.workers.within(late="keep").call(Worker.work).as_completed():
                pass
        assert [worker.ended for worker in t.workers] == [["finished"], ["cancelled"]]


@pytest.mark.virtual_time
async def test_as_completed_may_be_left(team) -> None:
    async with team(1, 2, 500) as t:
        async with aclosing(t.boss.workers.call(Worker.work).as_completed()) as answers:
            async for _ in answers:
                break
        await anyio.sleep(1)
        assert [worker.ended for worker in t.workers] == [["finished"], ["cancelled"], ["cancelled"]]


@pytest.mark.virtual_time
async def test_as_completed_raises_at_its_end_when_too_few_came(team) -> None:
    came = []
    async with team(1, ValueError("broken"), 2) as t:
        with pytest.raises(rc.QuorumMissed, match="a/w1: ValueError: broken"):
            async for who, _ in t.boss.workers.within(deadline_s=5, quorum=3).call(Worker.work).as_completed():
                came.append(who)


@pytest.mark.virtual_time
async def test_nobody_minds_an_error_after_the_group_has_left(team) -> None:
    """A handler that turns its cancellation into an error is heard by nobody but the dead letters."""

    class Stubborn(Worker):
        async def work(self, amount: int = 1) -> str:
            try:
                return await super().work(amount)
            except asyncio.CancelledError:
                raise ValueError("no") from None

    async with team(1) as t:
        await t.w.role("a/w1", Stubborn, delay_s=500)
        await t.boss.workers.within(quorum=1).call(Worker.work)
        await anyio.sleep(1)


# ---------------------------------------------------------------------------------------------- serialising


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was put into chunks."""
    chunks: list[Any] = []
    encode = checking.chunk_encode
    monkeypatch.setattr(checking, "chunk_encode", lambda segments: chunks.append(segments) or encode(segments))
    return chunks


class Big(msgspec.Struct):
    steps: list[int]


async def test_a_broadcast_is_serialised_once(team, encoded) -> None:
    async with team(*[0] * 6) as t:
        before = len(encoded)
        await t.boss.workers.call(Worker.plan, [1, 2, 3])
        arguments, answers = 1, 6
        assert len(encoded) - before == arguments + answers


async def test_each_member_gets_its_own_copy_of_a_broadcast(world) -> None:
    class Keeper(rc.Role):
        @rc.service
        async def keep(self, big: Big) -> None:
            self.big = big

    class Sender(rc.Role):
        keepers: rc.Group[Keeper] = rc.many()

    async with world(keepers="a/k*") as w:
        keepers = [await w.role(f"a/k{number}", Keeper) for number in range(2)]
        sender = await w.role("a/sender", Sender)
        await sender.keepers.call(Keeper.keep, Big([1]))
        assert keepers[0].big == keepers[1].big == Big([1])
        assert keepers[0].big is not keepers[1].big


async def test_tasks_of_a_group_take_tensors(team, settle) -> None:
    async with team(0, 0) as t:
        for worker in t.workers:
            worker.gate.set()
        replies = await t.boss.workers.call(Worker.gated, rc.Tensors({"w": [3.0, 4.0]}))
        assert list(replies.values()) == [5.0, 5.0]


# ---------------------------------------------------------------------------------------------- membership, draws


async def test_who_joins_is_called_and_who_has_left_is_not(team) -> None:
    async with team(0, 0) as t:
        await t.worker(2, 0.0)
        assert list(await t.boss.workers.call(Worker.work)) == ["a/w0", "a/w1", "b/w2"]
        await t.w.instance("a/w1").stop()
        assert list(await t.boss.workers.call(Worker.work)) == ["a/w0", "b/w2"]


async def test_a_handler_may_call_a_group(team) -> None:
    class Client(rc.Role):
        boss: Boss = rc.one()

    async with team(0, 0) as t:
        client = await t.w.role("a/client", Client)
        assert await client.boss.nested() == ["w0:1", "w1:1"]


async def test_draws_depend_on_their_step_or_on_how_many_there_were(team) -> None:
    async with team(*[0] * 9) as t:
        workers = t.boss.workers
        assert workers.choice(3).id == workers.choice(3).id
        assert len({workers.choice(step).id for step in range(40)}) == 9
        assert len({workers.choice().id for _ in range(40)}) == 9
        assert workers.sample(0.4, 1).ids == workers.sample(0.4, 1).ids
        assert len({workers.sample(0.4).ids for _ in range(10)}) > 5


async def test_a_sample_has_at_least_one_and_the_order_of_the_group(team) -> None:
    async with team(*[0] * 9) as t:
        workers = t.boss.workers
        assert [len(workers.sample(fraction)) for fraction in (0.01, 0.34, 0.5, 1.0)] == [1, 3, 5, 9]
        for step in range(10):
            sample = workers.sample(0.5, step).ids
            assert sample == tuple(sorted(sample, key=workers.rank))
        with pytest.raises(ValueError, match=r"sample\(0\)"):
            workers.sample(0)


async def test_nothing_can_be_chosen_from_nobody(team) -> None:
    async with team() as t:
        with pytest.raises(rc.RelationshipError, match="'workers': has no other member to choose"):
            t.boss.workers.choice()
        assert len(t.boss.workers.sample(0.5)) == 0
        with pytest.raises(rc.RelationshipError, match="'workers': has no members"):
            t.boss.workers.at(0)
