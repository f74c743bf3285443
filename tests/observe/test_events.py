from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest

from rolecall.core.ids import RoleId
from rolecall.core.records import DeadLetter, LogLine, Metric, Record, StatusChange
from rolecall.observe.events import EventStream, event_of, line_of
from rolecall.observe.summary import Failure, Plan, Summary

ROLE = RoleId("server/coordinator")
PLAN = Plan(name="digits", architecture="fedavg", engine="local", seed=7, nodes=11, roles=13, rounds=3)
SUMMARY = Summary(
    status="ok", architecture="fedavg", rounds=3, accuracy=0.5, wall_s=1.23456789, digest="ab", name="digits"
)
FAILURE = Failure(status="failed", error="boom", error_type="ValueError", exit_code=1, traceback="Traceback")


@pytest.mark.parametrize(
    ("record", "event"),
    [
        (
            Metric(1.5, ROLE, {"round": 1, "accuracy": 0.5}),
            {"event": "metric", "role": ROLE, "time_s": 1.5, "round": 1, "accuracy": 0.5},
        ),
        (
            StatusChange(0.5, ROLE, "ready"),
            {"event": "status", "time_s": 0.5, "role": ROLE, "status": "ready"},
        ),
        (
            DeadLetter(2.0, "call", ROLE, "run", "role ended"),
            {
                "event": "dead-letter",
                "time_s": 2.0,
                "kind": "call",
                "role": ROLE,
                "channel": "run",
                "reason": "role ended",
            },
        ),
        (
            LogLine(2.0, "warning", "watchdog", "late"),
            {"event": "log", "time_s": 2.0, "level": "warning", "source": "watchdog", "text": "late"},
        ),
    ],
)
def test_each_record_has_its_event(record: Record, event: dict[str, object]) -> None:
    assert event_of(record) == event
    assert json.loads(line_of(event_of(record))) == event


def test_a_metric_cannot_pass_for_something_else() -> None:
    event = event_of(Metric(1.0, ROLE, {"event": "finished", "role": "thief", "terminal": 1, "time_s": 9}))
    assert event == {
        "event": "metric",
        "role": ROLE,
        "time_s": 1.0,
        "event_": "finished",
        "role_": "thief",
        "terminal_": 1,
        "time_s_": 9,
    }


def test_numbers_that_json_lacks_are_null_and_numpy_numbers_are_numbers() -> None:
    line = line_of({"a": math.nan, "b": -math.inf, "c": np.float32(0.5), "d": np.int64(3), "e": 1e-9})
    assert json.loads(line) == {"a": None, "b": None, "c": 0.5, "d": 3, "e": 1e-9}


def test_a_line_is_one_line_of_ascii() -> None:
    line = line_of({"text": "zwei\nZeilen, größer als nötig \u2028"})
    assert line.isascii()
    assert line.splitlines() == [line[:-1]]


def test_a_whole_run() -> None:
    out = io.StringIO()
    stream = EventStream(out)
    stream.started(PLAN)
    stream.record(StatusChange(0.1, ROLE, "ready"))
    stream.finished(SUMMARY)
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["started", "status", "finished"]
    assert events[0]["rounds"] == 3
    assert list(events[-1])[:8] == [
        "event",
        "terminal",
        "status",
        "architecture",
        "rounds",
        "accuracy",
        "wall_s",
        "digest",
    ]
    assert events[-1]["wall_s"] == 1.234568


def test_nothing_follows_the_terminal_event() -> None:
    out = io.StringIO()
    stream = EventStream(out)
    stream.failed(FAILURE)
    stream.failed(FAILURE)
    stream.record(StatusChange(0.1, ROLE, "stopped"))
    [event] = [json.loads(line) for line in out.getvalue().splitlines()]
    assert event["terminal"] is True
    assert (event["error"], event["error_type"], event["exit_code"]) == ("boom", "ValueError", 1)
    assert "traceback" not in event
