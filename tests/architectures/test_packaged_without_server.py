"""The packaged applications without a server: they learn, alike on every engine where their definition is exact."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import rolecall as rc
from rolecall import architectures
from rolecall.observe.outcome import outcome

HERE = Path(architectures.__file__).parent
EXACT = ("dpsgd", "etree", "ring_allreduce", "butterfly_allreduce", "tree_allreduce")
ALL = (*EXACT, "gossip", "adpsgd", "wagma")
SOAK = "ROLECALL_SOAK" in os.environ


def packaged(name: str) -> Path:
    return HERE / f"{name}.yaml"


@pytest.mark.parametrize("name", ALL)
def test_two_rounds_in_a_checked_run(name: str) -> None:
    history = rc.run_sync(packaged(name), seed=1, sets=["rounds=2"], checked=True)
    judged = outcome(history)
    assert judged.accuracy is not None and 0 < judged.accuracy < 1
    assert judged.solo is not None and judged.consensus is not None
    trainers = {m.role for m in history.metrics if "trained" in m.values}
    assert len(trainers) == 10, "not every node says what it has trained"


@pytest.mark.parametrize("name", EXACT)
def test_a_seed_gives_one_digest_and_another_seed_another(name: str) -> None:
    digests = [rc.run_sync(packaged(name), seed=seed, sets=["rounds=2"]).digest for seed in (7, 7, 8)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", EXACT if SOAK else ("dpsgd",))
def test_processes_give_the_digest_of_one_process(name: str) -> None:
    runs = [rc.run_sync(packaged(name), engine=engine, seed=7, sets=["rounds=3"]) for engine in ("local", "processes")]
    assert runs[0].digest == runs[1].digest


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(5) if SOAK else [0])
@pytest.mark.parametrize("name", ALL if SOAK else ("ring_allreduce",))
def test_nodes_with_unlike_data_learn_more_together_than_alone(name: str, seed: int) -> None:
    judged = outcome(rc.run_sync(packaged(name), seed=seed))
    assert judged.accuracy is not None and judged.solo is not None
    assert judged.accuracy >= max(0.75, judged.solo + 0.25)
