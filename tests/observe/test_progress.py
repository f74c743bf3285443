from __future__ import annotations

import io
from collections.abc import Callable

from msgspec import structs
from rich.console import Console

from rolecall.core.ids import RoleId
from rolecall.core.records import DEPLOYMENT, SIMULATION, DeadLetter, LogLine, Metric
from rolecall.observe.progress import LiveProgress, PlainProgress, progress_for
from rolecall.observe.summary import Failure, Plan, Summary

PLAN = Plan(name="digits", architecture="fedavg", engine="local", seed=7, nodes=11, roles=13, rounds=3)
SUMMARY = Summary(
    status="ok",
    architecture="fedavg",
    rounds=3,
    accuracy=0.75,
    wall_s=2.5,
    digest="ab12",
    name="digits",
    run_dir="runs/x",
)
FAILURE = Failure(status="failed", error="boom", error_type="ValueError", exit_code=1)


def metric(role: str, time_s: float, **values: float | int | str) -> Metric:
    return Metric(time_s, RoleId(role), values)


def three_rounds(progress: PlainProgress) -> None:
    progress.started(PLAN)
    for r in (1, 2, 3):
        progress.record(metric("server/coordinator", r / 2, round=r, accuracy=r / 4, loss=1 / r))


def test_plain_progress_is_a_line_a_round_then_the_curve_then_the_result() -> None:
    out = io.StringIO()
    progress = progress_for(out)
    three_rounds(progress)
    progress.finished(SUMMARY)
    lines = out.getvalue().splitlines()
    assert lines[:4] == [
        "digits: 11 nodes, 13 roles, engine local, seed 7",
        "round 1/3  accuracy 0.2500  loss 1.0000     0.5 s",
        "round 2/3  accuracy 0.5000  loss 0.5000     1.0 s",
        "round 3/3  accuracy 0.7500  loss 0.3333     1.5 s",
    ]
    assert any(line.endswith("* 0.750") for line in lines)
    assert lines[-3:] == [
        "digits finished with accuracy 0.7500 after 3 rounds in 2.5 s",
        "digest of the final parameters: ab12",
        "run directory: runs/x",
    ]
    assert "\x1b" not in out.getvalue()


def test_the_first_round_waits_for_the_accuracy() -> None:
    out = io.StringIO()
    progress = PlainProgress(out)
    for r in (1, 2):
        progress.record(metric("server/coordinator", float(r), round=r, clients=5))
        progress.record(metric("server/coordinator", float(r), round=r, accuracy=r / 4, loss=1.0))
    assert [line.split()[2:6] for line in out.getvalue().splitlines()] == [
        ["accuracy", "0.2500", "loss", "1.0000"],
        ["accuracy", "0.5000", "loss", "1.0000"],
    ]


def test_a_round_that_many_report_is_one_line_when_all_have() -> None:
    out = io.StringIO()
    progress = PlainProgress(out)
    for r in (1, 2):
        for client in range(3):
            progress.record(metric(f"client{client}/gossip", float(r), round=r, accuracy=r / 4))
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[1] == "round    2  accuracy 0.5000     2.0 s"


def test_without_rounds_there_is_at_most_a_line_a_second() -> None:
    out = io.StringIO()
    progress = PlainProgress(out)
    for n in range(301):
        progress.record(metric("a/worker", n / 100, step=n, loss=1.0))
    assert len(out.getvalue().splitlines()) == 4


def test_what_goes_wrong_is_said_at_once_and_not_endlessly() -> None:
    out = io.StringIO()
    progress = PlainProgress(out)
    progress.record(LogLine(0.0, "info", "node", "nothing special"))
    progress.record(LogLine(0.0, "warning", "watchdog", "blocked for 2 s"))
    for _ in range(100):
        progress.record(DeadLetter(0.0, "event", RoleId("a/b"), "trained", "role ended"))
    progress.finished(SUMMARY)
    lines = out.getvalue().splitlines()
    assert lines[0] == "warning: watchdog: blocked for 2 s"
    assert lines[1] == "warning: dead letter: event to a/b.trained: role ended"
    assert sum("dead letter:" in line for line in lines) == 5
    assert "warning: 100 dead letters in all; log.txt has every one" in lines


def test_how_far_the_nodes_are_is_said() -> None:
    out = io.StringIO()
    progress = PlainProgress(out)
    progress.record(LogLine(0.0, "info", DEPLOYMENT, "3 of 4 nodes have their roles"))
    assert out.getvalue() == "3 of 4 nodes have their roles\n"


def test_a_simulated_run_says_the_digest_of_its_events_and_how_to_have_a_failure_again() -> None:
    for failure in (None, structs.replace(FAILURE, run_dir="runs/x")):
        out = io.StringIO()
        progress = PlainProgress(out)
        three_rounds(progress)
        progress.record(LogLine(2.5, "info", SIMULATION, "2.5 s simulated; digest of events 12cd"))
        if failure is None:
            progress.finished(SUMMARY)
            assert "2.5 s simulated; digest of events 12cd\nrun directory: runs/x\n" in out.getvalue()
        else:
            progress.failed(failure)
            told = "2.5 s simulated; digest of events 12cd\nto have it again: rolecall replay runs/x\n"
            assert out.getvalue().endswith(told)


def test_a_failed_run_still_shows_its_curve() -> None:
    out = io.StringIO()
    progress = PlainProgress(out)
    three_rounds(progress)
    progress.failed(FAILURE)
    assert "* 0.750" in out.getvalue()
    assert "finished" not in out.getvalue()


def terminal(height: int = 40) -> tuple[io.StringIO, Console]:
    out = io.StringIO()
    able = {"TERM": "xterm-256color"}
    return out, Console(file=out, force_terminal=True, width=100, height=height, _environ=able)


def ticking(step_s: float) -> Callable[[], float]:
    now = iter(range(10_000))
    return lambda: next(now) * step_s


def test_live_progress_shows_position_and_a_growing_curve_and_leaves_the_result() -> None:
    out, console = terminal()
    progress = LiveProgress(console, clock=ticking(1.0))
    three_rounds(progress)
    during = out.getvalue() + str(progress)
    progress.finished(SUMMARY)
    text = out.getvalue()
    assert "\x1b" in during
    assert "round 3/3" in text  # the last frame before the display goes
    assert "digits finished with accuracy 0.7500" in text
    assert text.index("round 3/3") < text.index("digits finished")
    assert "run directory: runs/x" in text


def test_a_low_terminal_gets_the_bar_alone() -> None:
    out, console = terminal(height=10)
    progress = LiveProgress(console, clock=ticking(1.0))
    three_rounds(progress)
    progress.failed(FAILURE)
    before_the_curve = out.getvalue().split("accuracy\n")[0]
    assert "round 3/3" in before_the_curve


def test_a_terminal_that_can_do_nothing_gets_plain_lines() -> None:
    class Dumb(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert type(progress_for(Dumb())) is PlainProgress  # TERM=dumb, as all tests have it
    assert type(progress_for(io.StringIO())) is PlainProgress


def test_without_accuracy_and_loss_each_role_says_how_it_ended() -> None:
    out = io.StringIO()
    progress = PlainProgress(out)
    progress.started(PLAN)
    progress.record(metric("n10/walker", 0.1, sent=3, state="busy"))
    progress.record(metric("n2/walker", 0.2, sent=4))
    progress.record(metric("n10/walker", 0.3, sent=5, mean=0.25))
    progress.finished(structs.replace(SUMMARY, accuracy=None, rounds=None))
    lines = out.getvalue().splitlines()
    assert lines[-5:-3] == ["n2/walker  sent 4", "n10/walker  sent 5  state busy  mean 0.2500"]


def test_of_many_roles_the_first_say_how_they_ended() -> None:
    out = io.StringIO()
    progress = PlainProgress(out)
    for number in range(25):
        progress.record(metric(f"n{number}/walker", 0.1, sent=number))
    progress.finished(SUMMARY)
    lines = [line for line in out.getvalue().splitlines() if "/walker" in line or "more" in line]
    assert lines[-2:] == ["n19/walker  sent 19", "... and 5 roles more; metrics.jsonl has every one"]


def test_what_started_calls_returned_is_told() -> None:
    out = io.StringIO()
    progress = PlainProgress(out)
    three_rounds(progress)
    returned = {"server/lead.run": {"sum": 3}, "server/lead.stop": None, "a/b.long": "x" * 2000}
    progress.finished(structs.replace(SUMMARY, returned=returned))
    lines = [line for line in out.getvalue().splitlines() if " returned " in line]
    assert lines[0] == 'server/lead.run returned {"sum": 3}'
    assert len(lines) == 2 and lines[1].endswith("...")
