from __future__ import annotations

import pytest
from msgspec import structs

from rolecall.architectures import CATALOGUE
from rolecall.core.errors import ConfigError
from rolecall.fleet.app import App
from rolecall.fleet.contender import Workload, contender, dealt, of_size, packaged, takes

pytest.importorskip("torch")
pytest.importorskip("sklearn")

WORK = Workload(
    dataset="digits", model="mlp", clients=10, partition="iid", device="edge", network="wifi", lr=0.05, batch_size=8
)


def options(app: App) -> dict[str, object]:
    """Return all options of all roles of an application, whosever they are."""
    return {name: value for of in app.roles.values() for spec in of.values() for name, value in spec.options.items()}


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_architecture_can_be_compared(name: str) -> None:
    app = contender(name, WORK).expanded(seed=7)
    app.check()
    specs = [spec for of in app.roles.values() for spec in of.values()]
    assert {(node.device, node.network) for node in app.nodes.values()} == {("edge", "wifi")}
    assert all("test_data" not in spec.elements for spec in specs)
    assert {str(spec.elements["model"].options) for spec in specs if "model" in spec.elements} == {
        "{'dataset': 'digits'}"
    }
    assert (options(app)["lr"], options(app)["batch_size"]) == (0.05, 8)
    data = [spec.elements["data"].options for spec in specs if "data" in spec.elements]
    assert len(data) == 10 and {part["partition"] for part in data} == {"iid"}


def test_a_round_of_gossip_reads_the_data_once() -> None:
    assert dealt(WORK) == 1442
    assert options(contender("gossip", WORK).expanded(seed=7))["local_steps"] == 19  # of 8 samples, for 144


def test_settings_are_for_parameters_or_else_for_options() -> None:
    app = contender("gossip", WORK, ["fanout=1", "patience_s=2.5", "local_steps=3"]).expanded(seed=7)
    found = options(app)
    assert (found["fanout"], found["patience_s"], found["local_steps"]) == (1, 2.5, 3)
    assert takes("gossip", "patience_s") and takes("fedavg", "data.dataset") and not takes("fedavg", "patience_s")


def test_another_number_of_clients() -> None:
    few = contender("fedavg", structs.replace(WORK, clients=3)).expanded(seed=7)
    assert list(few.nodes) == ["server", "client1", "client2", "client3"]
    assert list(of_size(packaged("gossip", "test"), 5).expanded(seed=7).nodes)[-1] == "node5"


@pytest.mark.parametrize(
    ("name", "changes", "sets", "message"),
    [
        ("fedvag", {}, [], "there is no architecture 'fedvag'. Did you mean 'fedavg'?"),
        ("fedavg", {"model": "lenet"}, [], "there is no model 'lenet'. Did you mean 'lenet5'?"),
        ("fedavg", {}, ["fractoin=0.1"], "no parameter or option 'fractoin'. Did you mean 'fraction'?"),
        ("fedavg", {}, ["fraction"], "found 'fraction', expected KEY=VALUE"),
    ],
)
def test_what_is_not_known(name: str, changes: dict[str, str], sets: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        contender(name, structs.replace(WORK, **changes), sets)
    assert message in str(raised.value)
