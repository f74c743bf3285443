from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

import rolecall as rc
from rolecall.architectures import CATALOGUE, fedavg
from rolecall.core.randomness import seed_for
from rolecall.learn import MLP, shard, test_set
from rolecall.observe.outcome import Outcome, models, outcome, samples_trained

pytest.importorskip("torch")
pytest.importorskip("sklearn")


def run(**options: Any) -> rc.History:
    app = fedavg.app(MLP, "digits", clients=3, partition="dirichlet(0.1)", rounds=2, epochs=2, seed=7, **options)
    return rc.run_sync(app)


def test_of_a_global_model_it_is_its_accuracy_and_no_distance() -> None:
    history = run()
    found = outcome(history)
    assert history.final is not None and list(models(history)) == [history.final]
    assert found.accuracy == history.last("accuracy") and found.consensus == 0.0


def test_alone_every_trainer_has_the_budget_it_had_together() -> None:
    history = run(lr=0.2, batch_size=16)
    counts = samples_trained(history)
    accuracies = []
    for index in range(3):
        role = f"client{index + 1}/trainer"
        data = shard("digits", "dirichlet(0.1)", index, 3, seed_for(7, "element", "data"))
        assert counts[rc.RoleId(role)] == 2 * 2 * len(data)
        model = MLP(seed=seed_for(7, "element", "model"))
        alone = model.fit(model.parameters(), data, epochs=4, batch_size=16, lr=0.2, seed=seed_for(7, role, "alone"))
        accuracies.append(model.evaluate(alone.params, test_set("digits")).accuracy)
    assert outcome(history).solo == pytest.approx(sum(accuracies) / 3)


def test_of_several_models_it_is_their_mean_and_their_largest_distance() -> None:
    history = run()
    params = history.final
    assert params is not None
    state = fedavg.FederationState(2, params + 1.0)
    history = structs.replace(history, states={**history.states, "client1/trainer": state})
    found, model = outcome(history), MLP()
    both = [model.evaluate(each, test_set("digits")).accuracy for each in (params, params + 1.0)]
    assert found.accuracy == pytest.approx(sum(both) / 2)
    assert found.consensus == pytest.approx(params.size**0.5, rel=1e-5)


def test_what_a_run_does_not_say_is_not_made_up() -> None:
    class Idle(rc.Role):
        async def main(self) -> None:
            self.log(x=1)

    app = rc.App(name="idle", nodes={"a": rc.Node()}, roles={"a": {"idle": rc.RoleSpec(Idle)}})
    assert outcome(rc.run_sync(app)) == Outcome()


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_packaged_application_fits_together(name: str) -> None:
    path = Path(fedavg.__file__).with_name(f"{name.replace('-', '_')}.yaml")
    app = rc.App.load(path).expanded(["rounds=2"], seed=1)
    app.check()
    assert app.parameters["data"] == {"dataset": "digits", "partition": "dirichlet(0.1)"}
    assert len([node for node in app.nodes if app.roles.get(node)]) >= 10
