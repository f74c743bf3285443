from __future__ import annotations

import copy
import sys

import numpy as np
import pytest

from rolecall.core.errors import CallerError, ConfigError, MissingDependency
from rolecall.learn.dataset import ArrayDataset
from rolecall.learn.models import CNN, MLP, LeNet5, LogisticRegression, ResNet8
from rolecall.learn.torch_model import TorchModel

torch = pytest.importorskip("torch")


def images(*shape: int, samples: int = 4) -> ArrayDataset:
    return ArrayDataset(np.zeros((samples, *shape), np.float32), np.arange(samples), 10, name="mine")


def test_lenet5_has_the_size_known_from_the_literature() -> None:
    assert LeNet5().parameters().size == 61_706
    assert LeNet5(channels=3).parameters().size == 62_006


def test_mlp_has_the_layers_asked_for() -> None:
    assert [spec.shape for spec in MLP().parameters().spec] == [(64, 64), (64,), (10, 64), (10,)]
    deep = MLP([32, 16], inputs=20, classes=3, activation="tanh", dropout=0.1)
    assert [spec.shape for spec in deep.parameters().spec][::2] == [(32, 20), (16, 32), (3, 16)]
    assert MLP([], inputs=5, classes=2).parameters().size == 12


def test_a_data_set_by_name_sets_the_sizes() -> None:
    assert MLP(dataset="fashion-mnist").parameters().spec[0].shape == (64, 784)
    assert MLP(dataset="cifar-10").parameters().spec[0].shape == (64, 3072)
    assert LeNet5(dataset="cifar-10").parameters().size == 62_006
    with pytest.raises(ConfigError, match=r"no data set of this name.*Did you mean 'fashion-mnist'\?"):
        MLP(dataset="fashion_mnist")


def test_seed_decides_the_weights() -> None:
    assert LeNet5(seed=1).parameters() == LeNet5(seed=1).parameters() != LeNet5(seed=2).parameters()


@pytest.mark.parametrize(
    ("model", "shape"), [(LeNet5(), (1, 28, 28)), (LeNet5(3), (3, 32, 32)), (LeNet5(size=32), (1, 32, 32))]
)
def test_lenet5_takes_images(model: LeNet5, shape: tuple[int, ...]) -> None:
    assert model.fit(model.parameters(), images(*shape)).samples == 4
    assert model.evaluate(model.parameters(), images(*shape)).samples == 4


def test_lenet5_says_which_images_it_takes() -> None:
    model = LeNet5()
    with pytest.raises(CallerError, match=r"takes images of 1x28x28, .* has 1x8x8. .*MLP takes samples of any shape"):
        model.fit(model.parameters(), images(1, 8, 8))
    with pytest.raises(ConfigError, match=r"cannot take images of 8x8 pixels\. LeNet5 is for 28x28 and 32x32"):
        LeNet5(dataset="digits")


def test_mlp_says_which_samples_it_takes() -> None:
    model = MLP()
    with pytest.raises(CallerError, match=r"takes 64 values a sample, .* has 784. Make it with inputs=784"):
        model.fit(model.parameters(), images(1, 28, 28))
    with pytest.raises(ConfigError, match=r"no activation 'rellu'.*Did you mean 'relu'\?"):
        MLP(activation="rellu")


@pytest.mark.parametrize("make", [MLP, LeNet5])
def test_without_torch(make: type[MLP | LeNet5], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependency, match=rf"{make.__name__} needs torch.*pip install 'rolecall\[torch\]'"):
        make()


def test_federated_averaging_learns_digits() -> None:
    pytest.importorskip("sklearn")
    from rolecall.learn import shard, test_set, weighted_mean

    model = MLP(seed=7)
    shards = [shard("digits", "dirichlet(0.5)", index, 10, seed=7) for index in range(10)]
    params = model.parameters()
    for round_ in range(8):
        chosen = shards[round_ % 2 :: 2]
        params = weighted_mean(model.fit(params, data, epochs=3, batch_size=16, lr=0.2, seed=round_) for data in chosen)
    assert model.evaluate(params, test_set("digits")).accuracy > 0.85


def test_the_cnn_of_the_papers_comparison_has_about_550_000_values() -> None:
    assert CNN(dataset="cifar-10").parameters().size == 545_098
    assert CNN(dataset="fashion-mnist").parameters().size == 547_522


def test_logistic_regression_is_one_layer() -> None:
    model = LogisticRegression(inputs=3, classes=2)
    assert [spec.shape for spec in model.parameters().spec] == [(2, 3), (2,)]


def test_resnet8_has_eight_layers_and_no_running_statistics() -> None:
    spec = ResNet8(3).parameters().spec
    assert ResNet8(3).parameters().size == 77_850
    layers = [entry for entry in spec if len(entry.shape) > 1 and "shortcut" not in entry.name]
    assert len(layers) == 8 and not any("running" in entry.name for entry in spec)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (CNN(), (1, 28, 28)),
        (CNN(3), (3, 32, 32)),
        (ResNet8(dataset="digits"), (1, 8, 8)),
        (ResNet8(3), (3, 32, 32)),
        (LogisticRegression(), (1, 8, 8)),
    ],
)
def test_each_trains_and_predicts(model: TorchModel, shape: tuple[int, ...]) -> None:
    data = images(*shape)
    update = model.fit(model.parameters(), data, epochs=20, lr=0.1)
    assert update.loss < model.evaluate(model.parameters(), data).loss
    outputs = model.predict(update.params, data.x)
    assert outputs.shape == (4, 10)
    assert model.evaluate(update.params, data).accuracy == (outputs.argmax(1) == data.y).mean()


@pytest.mark.parametrize("model", [LeNet5(), CNN(3), ResNet8(3)], ids=lambda model: type(model).__name__)
def test_the_layout_in_memory_changes_how_fast_a_model_is_not_what_it_computes(model: TorchModel) -> None:
    plain = TorchModel(copy.deepcopy(model.module).to(memory_format=torch.contiguous_format))
    channels, size = (1, 28) if isinstance(model, LeNet5) else (3, 32)
    random = np.random.default_rng(1)
    data = ArrayDataset(random.random((20, channels, size, size), np.float32), random.integers(0, 10, 20), 10)
    update, expected = (which.fit(model.parameters(), data, batch_size=8, lr=0.1, seed=3) for which in (model, plain))
    assert update.params.spec == expected.params.spec
    assert all(value.flags.c_contiguous for value in update.params.values())
    for name, value in expected.params.items():
        np.testing.assert_allclose(update.params[name], value, rtol=1e-4, atol=1e-6)


def test_images_of_another_size() -> None:
    with pytest.raises(ConfigError, match=r"CNN: it cannot take images of 8x8 pixels\. CNN is for 28x28"):
        CNN(size=8)
    with pytest.raises(CallerError, match=r"takes images of 1x8x8, .* has 1x9x9"):
        ResNet8(size=8).fit(ResNet8(size=8).parameters(), images(1, 9, 9))
