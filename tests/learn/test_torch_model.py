from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import pytest

from rolecall.core.errors import CallerError, ConfigError, MissingDependency, WrongType
from rolecall.core.tensors import Tensors
from rolecall.learn.dataset import ArrayDataset
from rolecall.learn.model import Differentiable, Model, Predictable, Proximal, Scorable, Update
from rolecall.learn.torch_model import TorchModel

torch = pytest.importorskip("torch")
nn = torch.nn


def blobs(samples: int = 90, seed: int = 0) -> ArrayDataset:
    """Three clusters in four dimensions: easy to tell apart."""
    rng = np.random.default_rng(seed)
    y = np.arange(samples) % 3
    centres = np.eye(3, 4) * 3
    return ArrayDataset((centres[y] + rng.normal(size=(samples, 4))).astype(np.float32), y)


def plain() -> Any:
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))


def dropping() -> Any:
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))


class HiddenDropout(nn.Module):  # type: ignore[misc,name-defined]
    """Draws in a way that no look at its parts would show."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = plain()

    def forward(self, x: Any) -> Any:
        return self.inner(nn.functional.dropout(x, 0.3, self.training))


def normalising() -> Any:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


EVERY_KIND = [plain, dropping, HiddenDropout, normalising]


class TestModel:
    def test_is_a_model(self) -> None:
        model = TorchModel(plain)
        assert isinstance(model, Model)
        assert isinstance(model, Differentiable)
        assert repr(model) == "TorchModel(Sequential, 131 values)"

    def test_learns(self) -> None:
        model = TorchModel(plain, seed=1)
        update = model.fit(model.parameters(), blobs(), epochs=20, batch_size=8)
        before, after = (model.evaluate(p, blobs(seed=1)) for p in (model.parameters(), update.params))
        assert after.accuracy > 0.9 > before.accuracy
        assert after.loss < before.loss
        assert (update.samples, after.samples) == (90, 90)
        assert 0 < update.loss < 0.3

    def test_parameters_are_copies(self) -> None:
        model = TorchModel(plain)
        before = model.parameters()
        model.load(before * 2)
        assert before * 2 == model.parameters() != before

    def test_fit_leaves_the_model_alone(self) -> None:
        model = TorchModel(normalising)
        before, params = model.parameters(), model.parameters() * 0.5
        digest = params.digest()
        update = model.fit(params, blobs())
        model.evaluate(params, blobs())
        assert model.parameters() == before
        assert params.digest() == digest
        assert update.params.spec == before.spec
        assert update.params["1.num_batches_tracked"] == 3

    def test_a_module_given_is_copied(self) -> None:
        module = plain()
        first, second = TorchModel(module), TorchModel(module)
        first.load(first.parameters() * 0)
        assert second.parameters() == Tensors(module.state_dict())
        assert first.parameters().norm() == 0

    def test_seed_decides_the_initial_weights(self) -> None:
        assert TorchModel(plain, seed=1).parameters() == TorchModel(plain, seed=1).parameters()
        assert TorchModel(plain, seed=1).parameters() != TorchModel(plain, seed=2).parameters()

    def test_accuracy_and_loss_are_those_of_torch(self) -> None:
        model, data = TorchModel(plain), blobs(1200)
        with torch.no_grad():
            outputs = model.module(torch.tensor(data.x))
        labels = torch.tensor(data.y)
        score = model.evaluate(model.parameters(), data)
        assert score.accuracy == (outputs.argmax(1) == labels).double().mean().item()
        assert score.loss == pytest.approx(nn.functional.cross_entropy(outputs, labels).item(), rel=1e-6)

    def test_numbers_instead_of_classes(self) -> None:
        x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
        model = TorchModel(lambda: nn.Linear(1, 1), loss="mse")
        data = ArrayDataset(x, 3 * x)
        update = model.fit(model.parameters(), data, epochs=50, batch_size=8)
        score = model.evaluate(update.params, data)
        assert score.loss < 1e-6
        assert np.isnan(score.accuracy)

    def test_images_of_bytes_are_scaled(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (8, 4), np.uint8)
        model, labels = TorchModel(plain), np.arange(8) % 3
        scaled = ArrayDataset((images / np.float32(255)).astype(np.float32), labels)
        params = model.parameters()
        assert model.evaluate(params, ArrayDataset(images, labels)) == model.evaluate(params, scaled)

    def test_float64_modules_train_in_float64(self) -> None:
        model = TorchModel(lambda: plain().double())
        assert model.fit(model.parameters(), blobs()).params.spec[0].dtype == "float64"

    @pytest.mark.parametrize(
        ("optimizer", "options"),
        [("sgd", {"momentum": 0.9, "weight_decay": 0.01}), ("adam", {}), ("adamw", {})],
    )
    def test_optimizers(self, optimizer: str, options: dict[str, float]) -> None:
        model = TorchModel(plain, optimizer=optimizer, **options)  # type: ignore[arg-type]
        update = model.fit(model.parameters(), blobs(), epochs=20, lr=0.02)
        assert model.evaluate(update.params, blobs()).accuracy > 0.9

    def test_an_optimizer_and_a_loss_of_ones_own(self) -> None:
        model = TorchModel(
            plain,
            loss=lambda outputs, targets: nn.functional.cross_entropy(outputs, targets, label_smoothing=0.1),
            optimizer=lambda parameters, lr: torch.optim.RMSprop(parameters, lr=lr / 10),
        )
        assert model.fit(model.parameters(), blobs(), epochs=5).loss < 1

    def test_steps_count_batches(self) -> None:
        model = TorchModel(plain)
        params = model.parameters()
        assert model.fit(params, blobs(90), batch_size=30, steps=6) == model.fit(
            params, blobs(90), batch_size=30, epochs=2
        )

    def test_a_lone_sample_at_the_end_does_not_stop_batch_normalisation(self) -> None:
        model = TorchModel(normalising)
        assert model.fit(model.parameters(), blobs(33), batch_size=16).samples == 33


class TestAgainstPlainTorch:
    def test_training_is_that_of_the_textbook(self) -> None:
        from rolecall.learn.batches import batches_of_epoch

        data, model = blobs(), TorchModel(lambda: plain().double(), seed=3)
        update = model.fit(model.parameters(), data, epochs=2, batch_size=16, lr=0.05, seed=9)
        module = TorchModel(lambda: plain().double(), seed=3).module
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
        for epoch in range(2):
            for batch in batches_of_epoch(90, batch_size=16, seed=9, epoch=epoch):
                optimizer.zero_grad()
                x = torch.tensor(data.x[batch]).double()
                nn.functional.cross_entropy(module(x), torch.tensor(data.y[batch])).backward()
                optimizer.step()
        assert update.params == Tensors(module.state_dict())

    def test_a_step_along_the_gradient_is_a_step_of_training(self) -> None:
        model, data = TorchModel(lambda: plain().double()), blobs()
        params = model.parameters()
        gradient = model.gradient(params, data, batch_size=20, step=0, seed=4)
        update = model.fit(params, data, batch_size=20, steps=1, lr=0.1, seed=4)
        assert gradient.samples == 20
        assert gradient.loss == update.loss
        assert (params - gradient.values * 0.1).allclose(update.params, rtol=0, atol=1e-15)

    def test_gradients_cover_every_batch(self) -> None:
        model, data = TorchModel(normalising), blobs(33)
        found = [model.gradient(model.parameters(), data, batch_size=16, step=step) for step in range(4)]
        assert [each.samples for each in found] == [16, 17, 16, 17]
        assert not found[0].values["1.running_mean"].any()
        assert len({each.values.digest() for each in found}) == 4


class TestReproducible:
    @pytest.mark.parametrize("kind", EVERY_KIND)
    def test_same_seed_same_bits(self, kind: Callable[[], Any]) -> None:
        def digest(seed: int) -> str:
            model = TorchModel(kind, seed=5)
            return model.fit(model.parameters(), blobs(), epochs=2, seed=seed).params.digest()

        assert digest(1) == digest(1)
        assert digest(1) != digest(2)

    @pytest.mark.parametrize("kind", EVERY_KIND)
    def test_threads_do_not_disturb_each_other(self, kind: Callable[[], Any]) -> None:
        model = TorchModel(kind)
        params = model.parameters()

        def fit(seed: int) -> str:
            return model.fit(params, blobs(), epochs=3, batch_size=4, seed=seed).params.digest()

        alone = [fit(seed) for seed in range(6)]
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(fit, range(6))) == alone

    def test_models_made_in_threads_are_those_made_alone(self) -> None:
        def make(seed: int) -> str:
            return TorchModel(dropping, seed=seed).parameters().digest()

        alone = [make(seed) for seed in range(8)]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(make, range(8))) == alone

    @pytest.mark.parametrize("kind", EVERY_KIND)
    def test_the_shared_generator_is_left_as_it_was(self, kind: Callable[[], Any]) -> None:
        torch.manual_seed(0)
        before = torch.get_rng_state()
        model = TorchModel(kind)
        model.fit(model.parameters(), blobs())
        model.evaluate(model.parameters(), blobs())
        assert torch.equal(torch.get_rng_state(), before)

    def test_what_was_drawn_before_does_not_matter(self) -> None:
        model = TorchModel(dropping)
        params = model.parameters()
        once = model.fit(params, blobs())
        torch.rand(10)
        assert model.fit(params, blobs()) == once

    def test_dropout_differs_from_batch_to_batch(self) -> None:
        model, data = TorchModel(dropping), ArrayDataset(np.ones((4, 4), np.float32), [0, 0, 0, 0])
        params = model.parameters()
        gradients = [model.gradient(params, data, batch_size=4, step=step).values.digest() for step in range(5)]
        assert len(set(gradients)) > 1

    def test_evaluation_drops_nothing(self) -> None:
        model = TorchModel(dropping)
        params = model.parameters()
        assert model.evaluate(params, blobs()) == model.evaluate(params, blobs())

    def test_one_intra_op_thread_everywhere(self) -> None:
        threads: list[int] = []
        told = _Told(lambda: threads.append(torch.get_num_threads()))
        model = TorchModel(nn.Sequential(nn.Linear(4, 3), told))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda seed: model.fit(model.parameters(), blobs(), seed=seed), range(2)))
        assert set(threads) == {1}

    def test_another_process_gives_the_same_bits(self) -> None:
        code = (
            "import numpy as np; from torch import nn; from rolecall.learn import ArrayDataset, TorchModel\n"
            "x = np.linspace(-1, 1, 240, dtype=np.float32).reshape(60, 4)\n"
            "m = TorchModel(lambda: nn.Sequential(nn.Linear(4, 9), nn.Dropout(0.2), nn.Linear(9, 3)), seed=2)\n"
            "u = m.fit(m.parameters(), ArrayDataset(x, np.arange(60) % 3), epochs=2, batch_size=7, seed=11)\n"
        )
        found = subprocess.run(
            [sys.executable, "-c", code + "print(u.params.digest())"],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": "12345"},
        )
        here: dict[str, Any] = {}
        exec(code, here)
        assert found.stdout.strip() == here["u"].params.digest()


class _Told(nn.Module):  # type: ignore[misc,name-defined]
    """Passes its input on, and tells that it did; its copies tell the same."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = [tell]

    def __deepcopy__(self, memo: object) -> _Told:
        return _Told(self._tell[0])

    def forward(self, x: Any) -> Any:
        self._tell[0]()
        return x


class TestCancelling:
    async def cancelled_during_the_first_batch(self, model_of: Callable[[Any], TorchModel]) -> int:
        begun, cancelled, batches = threading.Event(), threading.Event(), []

        def batch_begins() -> None:
            batches.append(1)
            begun.set()
            assert cancelled.wait(20)

        model = model_of(nn.Sequential(nn.Linear(4, 3), _Told(batch_begins)))
        params = model.parameters()
        results: list[Update] = []

        async def fit() -> None:
            results.append(await anyio.to_thread.run_sync(lambda: model.fit(params, blobs(), batch_size=1)))

        async with anyio.create_task_group() as group:
            group.start_soon(fit)
            await anyio.to_thread.run_sync(begun.wait, 20)
            group.cancel_scope.cancel()
            cancelled.set()
        assert not results
        return len(batches)

    async def test_stops_between_batches(self) -> None:
        assert await self.cancelled_during_the_first_batch(lambda module: TorchModel(module, draws=False)) == 1

    async def test_stops_between_batches_that_draw(self) -> None:
        assert await self.cancelled_during_the_first_batch(lambda module: TorchModel(module, draws=True)) == 1

    async def test_stops_while_it_waits_for_its_turn_to_draw(self) -> None:
        from rolecall.learn.torch_random import PrivateDraws

        model = TorchModel(dropping)
        params = model.parameters()
        release, held = threading.Event(), threading.Event()

        def hold() -> None:
            with PrivateDraws(0).drawing():
                held.set()
                assert release.wait(20)

        holder = threading.Thread(target=hold)
        holder.start()
        await anyio.to_thread.run_sync(held.wait, 20)
        try:
            with anyio.move_on_after(0.2) as scope:
                await anyio.to_thread.run_sync(lambda: model.fit(params, blobs()))
            assert scope.cancelled_caught
        finally:
            release.set()
            holder.join()


class TestMistakes:
    def test_parameters_of_another_model(self) -> None:
        params = TorchModel(lambda: nn.Linear(4, 2)).parameters()
        model = TorchModel(lambda: nn.Linear(4, 3))
        message = (
            r"TorchModel\(Linear, 15 values\): params: expected 'weight' float32 \[3, 4\], "
            r"found 'weight' float32 \[2, 4\]"
        )
        for use in (model.load, lambda p: model.fit(p, blobs()), lambda p: model.evaluate(p, blobs())):
            with pytest.raises(WrongType, match=message):
                use(params)
        with pytest.raises(WrongType, match="params: expected Tensors, found dict"):
            model.load({})  # type: ignore[arg-type]

    def test_no_samples(self) -> None:
        model = TorchModel(plain)
        with pytest.raises(CallerError, match="the data set is empty"):
            model.fit(model.parameters(), blobs(0))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"loss": "cross-entropy"},
                r"loss 'cross-entropy': there is no such loss.*Did you mean 'cross_entropy'\?",
            ),
            ({"optimizer": "sdg"}, r"optimizer 'sdg': .*Did you mean 'sgd'\?"),
            ({"optimizer": "adam", "momentum": 0.9}, r"it takes no momentum \(found 0.9\)"),
        ],
    )
    def test_options_that_cannot_be(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            TorchModel(plain, **options)

    def test_what_is_no_module(self) -> None:
        with pytest.raises(ConfigError, match="a str is no module"):
            TorchModel("net")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"made a int, expected a torch\.nn\.Module"):
            TorchModel(lambda: 3)  # type: ignore[arg-type,return-value]

    def test_layers_of_unknown_size(self) -> None:
        with pytest.raises(ConfigError, match="the size of parameter 'weight' is not known yet"):
            TorchModel(lambda: nn.LazyLinear(3))

    def test_without_torch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(MissingDependency, match=r"TorchModel needs torch.*pip install 'rolecall\[torch\]'"):
            TorchModel(plain)

    def test_importing_does_not_import_torch(self) -> None:
        code = "import sys, rolecall.learn; sys.exit(any(m in sys.modules for m in ('torch', 'sklearn')))"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestProximal:
    def test_the_term_is_that_of_the_paper(self) -> None:
        data, model, mu = blobs(8), TorchModel(plain, seed=3), 0.7
        start = model.parameters()
        found = model.fit_proximal(start, data, mu=mu, epochs=3, batch_size=8, lr=0.1, seed=5)

        module = plain()
        module.load_state_dict(start.torch())
        anchor = [value.clone().detach() for value in module.parameters()]
        x, y = torch.from_numpy(data.x.copy()), torch.from_numpy(data.y.copy())
        for _ in range(3):
            far = sum(((p - a) ** 2).sum() for p, a in zip(module.parameters(), anchor, strict=True))
            loss = nn.functional.cross_entropy(module(x), y) + mu / 2 * far
            module.zero_grad()
            loss.backward()
            with torch.no_grad():
                for value in module.parameters():
                    value -= 0.1 * value.grad
        assert found.params.allclose(Tensors(module.state_dict()), rtol=0, atol=1e-6)

    def test_without_it_is_plain_training(self) -> None:
        model, data = TorchModel(plain, momentum=0.9), blobs()
        plainly = model.fit(model.parameters(), data, seed=2)
        assert model.fit_proximal(model.parameters(), data, mu=0.0, seed=2).params == plainly.params

    def test_holds_the_model_near(self) -> None:
        model, data = TorchModel(plain), blobs()
        start = model.parameters()
        moved = [model.fit_proximal(start, data, mu=mu, epochs=5).params.distance(start) for mu in (0.0, 0.5, 5.0)]
        assert moved[0] > moved[1] > moved[2] > 0

    def test_a_negative_term(self) -> None:
        model = TorchModel(plain)
        with pytest.raises(CallerError, match="mu is -1"):
            model.fit_proximal(model.parameters(), blobs(), mu=-1)


def test_predictions_are_the_modules_outputs() -> None:
    model, data = TorchModel(dropping, seed=1), blobs()
    module = model.module.eval()
    expected = module(torch.from_numpy(data.x.copy())).detach().numpy()
    assert np.allclose(model.predict(model.parameters(), data.x), expected, atol=1e-6)
    assert isinstance(model, Predictable) and isinstance(model, Proximal) and isinstance(model, Scorable)
