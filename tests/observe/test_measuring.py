from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from rolecall.core.errors import ApplicationFailed, ConfigError
from rolecall.fleet.app import App
from rolecall.fleet.contender import Workload, contender
from rolecall.learn import MLP, test_set
from rolecall.observe.measuring import Measured, Point, measure

pytest.importorskip("torch")
pytest.importorskip("sklearn")

WORK = Workload(dataset="digits", model="mlp", clients=5, partition="iid", device="edge", network="wifi")
MODEL_BYTES = 4 * (64 * 64 + 64 + 64 * 10 + 10)


def app_of(name: str, *sets: str, **changes: Any) -> App:
    return contender(name, structs.replace(WORK, **changes), sets).expanded(seed=7)


def measured(app: App, **changes: Any) -> Measured:
    given: dict[str, Any] = {"budget": 4_326, "every": 1_442, "test_samples": 100, **changes}
    return measure(app, model=MLP(dataset="digits"), test=test_set("digits"), **given)


def test_points_are_between_rounds_and_count_what_was_sent() -> None:
    told: list[Point] = []
    found = measured(app_of("fedavg", "fraction=1.0"), on_point=told.append)
    assert found.points == told and found.models == 1
    assert [point.samples for point in told] == [1_442, 2_884, 4_326]  # three rounds of all there is
    for point in told[:-1]:
        assert (point.accuracy * 100) % 1 == pytest.approx(0, abs=1e-6)  # of a hundred samples
    # The last point comes with the first report of the fourth round, which has begun: five calls more.
    calls, replies = 5 * 4, 5 * 3
    assert found.final.messages == calls + replies
    assert 0 <= found.final.bytes - found.final.messages * MODEL_BYTES < found.final.messages * 1_000
    assert found.best >= found.final.accuracy > told[0].accuracy
    assert 0 < told[0].time_s < told[1].time_s < found.final.time_s


def test_the_same_seed_gives_the_same_points() -> None:
    app = app_of("gossip")
    assert measured(app).points == measured(app).points


def test_of_several_models_it_is_the_mean() -> None:
    found = measured(app_of("gossip"), budget=1_000, every=1_000)
    assert found.models == 5 and len(found.points) == 1
    assert 0 < found.final.accuracy < 1


def test_what_fails_is_raised() -> None:
    with pytest.raises(ApplicationFailed, match=r"client1/trainer: .* infinite or not a number"):
        measured(app_of("fedavg", lr=1e30))


def test_what_ends_too_early_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"fedavg: it ended after 1,442 of 4,326 samples"):
        measured(app_of("fedavg", "fraction=1.0", "rounds=1"))


def test_models_that_are_in_no_state_cannot_be_tested() -> None:
    with pytest.raises(ConfigError, match=r"fedavg: after 5.. samples no role holds a model in its state"):
        measured(app_of("fedavg", "fraction=1.0"), budget=300, every=300)
