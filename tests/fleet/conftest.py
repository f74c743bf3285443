"""A small application with role classes of its own, as a user would write them beside its file."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rolecall as rc
from rolecall.fleet.deployment import Deployment, deployment

from . import served

EXAMPLE = Path(__file__).parents[2] / "examples" / "fedavg" / "app.yaml"

ROLES = """
from __future__ import annotations

from abc import abstractmethod

import rolecall as rc


class Model:
    def __init__(self, hidden: int = 3, seed: int = 0) -> None:
        self.hidden = hidden


class Data:
    def __init__(self, index: int, of: int, seed: int) -> None:
        self.index = index


def make_data(index: int, of: int) -> Data:
    return Data(index, of, 0)


class Learner(rc.Role):
    @rc.task
    @abstractmethod
    async def train(self, step: int) -> int: ...


class Trainer(Learner):
    model: Model = rc.element()
    data: Data = rc.element(optional=True)

    def __init__(self, lr: float = 0.1, *, name: str = "") -> None:
        self.lr = lr

    @rc.task
    async def train(self, step: int) -> int:
        return step


class Prober(rc.Extension):
    @rc.service
    async def probe(self) -> int:
        return 1


class Server(rc.Role):
    trainers: rc.Group[Learner] = rc.many()
    store: Store = rc.one()

    @rc.task
    async def run(self, rounds: int) -> int:
        return rounds


class Store(rc.Role):
    @rc.service(allow="writers")
    async def write(self, value: int) -> None: ...


class NoRole: ...
"""

APP = """
name: small
parameters: {clients: 3, lr: 0.5}
nodes:
  server: {}
  client[1-${clients}]: {}
roles:
  server:
    main: {class: MODULE:Server}
    store: {class: MODULE:Store}
  client*:
    trainer:
      class: MODULE:Trainer
      options: {lr: "${lr}"}
      elements:
        model: {class: MODULE:Model, options: {hidden: 4}}
relationships:
  server: {trainers: client*/trainer}
start: {call: server/main.run, with: {rounds: 3}}
"""

numbers = itertools.count()


@pytest.fixture
def module(tmp_path: Path) -> Iterator[str]:
    """Write a module of role classes beside the applications of the test, and forget it afterwards."""
    name, path = f"small_roles_{next(numbers)}", list(sys.path)
    (tmp_path / f"{name}.py").write_text(ROLES)
    yield name
    sys.path[:] = path
    sys.modules.pop(name, None)


@pytest.fixture
def write(tmp_path: Path, module: str) -> Callable[..., Path]:
    """Return a function that writes the application, with a part of its text replaced."""

    def written(old: str = "", new: str = "", name: str = "app.yaml") -> Path:
        text = APP.replace("MODULE", module)
        assert old.replace("MODULE", module) in text
        path = tmp_path / name
        path.write_text(text.replace(old.replace("MODULE", module), new.replace("MODULE", module), 1))
        return path

    return written


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """Find the roles, and return what the nodes of `served` host."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return deployment(served.APP)


@pytest.fixture(scope="session")
def example_digest() -> str:
    """Return what the example of federated averaging comes to in one process."""
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    return rc.run_sync(EXAMPLE, seed=7).digest
