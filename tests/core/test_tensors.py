from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rolecall.core.errors import CallerError, DataError, WrongType
from rolecall.core.tensors import DTYPES, Tensors

torch = pytest.importorskip("torch")

FINITE = st.floats(-1e6, 1e6, width=32)


def example() -> Tensors:
    return Tensors({"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float32)})


@st.composite
def mappings(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=5))
    dtypes = st.sampled_from([np.dtype(name) for name in DTYPES if name != "bfloat16"])
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    return {name: draw(hnp.arrays(dtypes, shapes)) for name in names}


@st.composite
def float32s(draw: st.DrawFn, count: int = 1) -> list[Tensors]:
    shape = draw(hnp.array_shapes(max_dims=2, max_side=5))
    arrays = hnp.arrays(np.float32, shape, elements=FINITE)
    return [Tensors({"a": draw(arrays), "b": draw(arrays)}) for _ in range(count)]


class TestHolding:
    def test_reads_as_an_ordered_mapping(self) -> None:
        t = example()
        assert list(t) == ["w", "b"]
        assert len(t) == 2
        assert "w" in t and "x" not in t
        assert t["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert dict(t).keys() == {"w", "b"}

    def test_unknown_name_offers_the_nearest(self) -> None:
        with pytest.raises(KeyError, match=r"no tensor 'fc1.wight'. Did you mean 'fc1.weight'\?"):
            Tensors({"fc1.weight": np.zeros(1)})["fc1.wight"]

    def test_copies_what_it_is_given(self) -> None:
        source = np.zeros(3, np.float32)
        given_torch = torch.zeros(3)
        t = Tensors({"a": source, "b": given_torch})
        source[:] = 7
        given_torch += 7
        assert t["a"].tolist() == t["b"].tolist() == [0, 0, 0]

    def test_arrays_cannot_be_written(self) -> None:
        t = example()
        for array in (t["w"], t.flat):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 1
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True
        assert all(raw.readonly for _, raw in t.buffers())

    def test_one_flat_vector_holds_all(self) -> None:
        t = example()
        assert t.flat.tolist() == [0, 1, 2, 3, 4, 5, 1, 1, 1]
        assert np.shares_memory(t.flat, t["w"]) and np.shares_memory(t.flat, t["b"])
        assert t.like(t.flat) == t
        assert Tensors.from_flat(t.spec, [0, 1, 2, 3, 4, 5, 1, 1, 1]) == t

    def test_flat_of_mixed_dtypes_names_them(self) -> None:
        with pytest.raises(CallerError, match="one dtype, found: float32, int64"):
            _ = Tensors({"a": np.zeros(1, np.float32), "n": np.zeros(1, np.int64)}).flat

    def test_flat_of_the_wrong_length(self) -> None:
        with pytest.raises(WrongType, match=r"expected a vector of 9 values, found shape \[8\]"):
            example().like(np.zeros(8))

    def test_one_line(self) -> None:
        assert repr(example()) == "Tensors(2 arrays, 9 values, float32, 36 B)"
        assert repr(Tensors({"a": np.zeros(61706, np.float32)})) == "Tensors(1 array, 61,706 values, float32, 246.8 kB)"
        assert repr(Tensors({})) == "Tensors(0 arrays, 0 values, empty, 0 B)"

    def test_copying_is_needless(self) -> None:
        t = example()
        assert copy.copy(t) is t
        assert copy.deepcopy([t])[0] is t

    def test_hash_is_that_of_the_object(self) -> None:
        t, u = example(), example()
        assert t == u
        assert len({t, u}) == 2

    @pytest.mark.parametrize(
        ("value", "found"),
        [
            ("text", "str of str"),
            (np.zeros(1, complex), "ndarray of complex128"),
            (None, "NoneType of object"),
        ],
    )
    def test_what_is_no_tensor(self, value: Any, found: str) -> None:
        with pytest.raises(WrongType, match=rf"tensor 'a': expected an array of float16, .*found {found}"):
            Tensors({"a": value})

    def test_names_are_text(self) -> None:
        with pytest.raises(WrongType, match="name of a tensor: expected str, found int"):
            Tensors({1: np.zeros(1)})  # type: ignore[dict-item]

    def test_foreign_byte_order_and_strides(self) -> None:
        t = Tensors({"a": np.arange(6, dtype=">f4").reshape(2, 3).T})
        assert t["a"].dtype == np.dtype("=f4")
        assert t["a"].tolist() == [[0, 3], [1, 4], [2, 5]]

    @given(mappings())
    def test_holds_every_dtype_and_shape(self, arrays: dict[str, Any]) -> None:
        t = Tensors(arrays)
        assert list(t) == list(arrays)
        for name, array in arrays.items():
            assert t[name].dtype == array.dtype
            np.testing.assert_array_equal(t[name], array)
        assert t.size == sum(a.size for a in arrays.values())
        assert t.nbytes == sum(a.nbytes for a in arrays.values())

    @given(mappings())
    def test_buffers_and_back_without_a_copy(self, arrays: dict[str, Any]) -> None:
        t = Tensors(arrays)
        back = Tensors.from_buffers(t.spec, t.buffers())
        assert back.digest() == t.digest()
        assert all(np.shares_memory(back[name], t[name]) for name in t if t[name].size)

    def test_buffers_that_do_not_fit(self) -> None:
        t = example()
        with pytest.raises(WrongType, match="expected 36 bytes, found 32"):
            Tensors.from_buffers(t.spec, [("float32", bytes(32))])
        with pytest.raises(WrongType, match=r"buffers of \['float32'\], found \['int32'\]"):
            Tensors.from_buffers(t.spec, [("int32", bytes(36))])

    def test_a_spec_that_cannot_be(self) -> None:
        spec = example().spec
        with pytest.raises(CallerError, match="two tensors are named 'w'"):
            Tensors.from_buffers([spec[0], spec[0]], [("float32", bytes(48))])

    def test_a_writable_buffer_is_seen_read_only(self) -> None:
        t = Tensors.from_buffers(example().spec, [("float32", bytearray(36))])
        assert not t["w"].flags.writeable


class TestTorch:
    def test_gives_writable_copies(self) -> None:
        t = example()
        tensors = t.torch()
        tensors["w"] += 1
        assert t["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert tensors["w"].tolist() == [[1, 2, 3], [4, 5, 6]]
        assert tensors["b"].tolist() == [1, 1, 1]

    @pytest.mark.parametrize("name", DTYPES)
    def test_every_dtype_goes_in_and_out(self, name: str) -> None:
        source = torch.tensor([[0, 1, 2]]).to(getattr(torch, name))
        t = Tensors({"x": source})
        back = t.torch()["x"]
        assert t.spec[0].dtype == name
        assert back.dtype == source.dtype
        assert torch.equal(back, source)

    def test_parameters_and_views(self) -> None:
        parameter = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
        assert Tensors({"p": parameter, "t": parameter.T})["t"].tolist() == [[0, 3], [1, 4], [2, 5]]

    def test_bfloat16_is_computed_with_as_a_number(self) -> None:
        values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
        t = Tensors({"x": values})
        assert t["x"].dtype == np.uint16
        assert torch.equal((t * 3).torch()["x"], values * 3)
        assert torch.equal((t + t / 7).torch()["x"], values + values / 7)
        assert Tensors.mean([t, t, t]) == t

    def test_sparse_tensors_are_refused(self) -> None:
        with pytest.raises(WrongType, match="expected a dense tensor"):
            Tensors({"x": torch.eye(2).to_sparse()})

    def test_is_not_imported_unasked(self) -> None:
        code = (
            "import sys; from rolecall.core.tensors import Tensors; import numpy as np; "
            "t = Tensors({'a': np.ones(2)}) * 2; t.digest(); sys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestArithmetic:
    @given(float32s(2), FINITE)
    def test_is_that_of_numpy(self, pair: list[Tensors], number: float) -> None:
        x, y = pair
        for name in x:
            np.testing.assert_array_equal((x + y)[name], x[name] + y[name])
            np.testing.assert_array_equal((x - y)[name], x[name] - y[name])
            np.testing.assert_array_equal((x * y)[name], x[name] * y[name])
            np.testing.assert_array_equal((x * number)[name], x[name] * number)
            np.testing.assert_array_equal((number - x)[name], number - x[name])
        assert -x == 0 - x
        assert (x + y).spec == x.spec

    def test_division(self) -> None:
        t = example() + 1
        assert (t / t).flat.tolist() == [1] * 9
        assert (6 / t)["b"].tolist() == [3, 3, 3]
        assert (t / 2)["b"].tolist() == [1, 1, 1]

    def test_numpy_numbers_do_not_widen(self) -> None:
        t = example()
        for scaled in (t * np.float64(0.5), np.float64(0.5) * t, np.array(0.5) * t):
            assert scaled == t * 0.5
            assert scaled.spec == t.spec

    def test_whole_numbers_are_rounded(self) -> None:
        t = Tensors({"n": np.array([1, 2, 3]), "on": np.array([True, False, True])})
        assert (t * 0.5)["n"].tolist() == [0, 1, 2]
        assert (t / 2).spec == t.spec
        assert Tensors.mean([t, t * 2, t * 2])["n"].tolist() == [2, 3, 5]
        assert (t + t)["on"].tolist() == [True, False, True]
        assert (t - t)["on"].tolist() == [False, False, False]

    def test_another_spec_is_named(self) -> None:
        other = Tensors({"w": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float32)})
        with pytest.raises(WrongType, match=r"\+ Tensors: expected 'b' float32 \[3\], found 'b' float32 \[4\]"):
            example() + other
        with pytest.raises(WrongType, match=r"expected 2 tensors, found 1 \(without 'b'\)"):
            example() - Tensors({"w": example()["w"]})

    def test_other_operands(self) -> None:
        for other in ("text", None, np.zeros(2)):
            with pytest.raises(TypeError):
                example() + other  # type: ignore[operator]

    def test_norm_and_distance(self) -> None:
        t = Tensors({"a": np.array([3.0]), "b": np.array([4.0], np.float32)})
        assert t.norm() == 5
        assert t.distance(t) == 0
        assert t.distance(-t) == 10
        large = Tensors({"a": np.full(200_000, 0.5, np.float32)})
        assert large.norm() == pytest.approx(0.5 * 200_000**0.5, rel=1e-12)

    def test_isfinite_and_allclose(self) -> None:
        t = example()
        assert t.isfinite()
        assert not (t + float("inf")).isfinite()
        assert t.allclose(t + 1e-6, atol=2e-6)
        assert not t.allclose(t + 1e-3)
        assert Tensors({}).isfinite()

    def test_equality(self) -> None:
        t = example()
        assert t == example()
        assert t != t + 1
        assert t != Tensors({"w": t["w"]})
        assert t != Tensors({name: array.astype(np.float64) for name, array in t.items()})
        assert t != dict(t)
        nan = t * float("nan")
        assert nan != nan
        assert nan.digest() == (t * float("nan")).digest()


class TestMean:
    @given(float32s(), st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=30))
    def test_of_equal_tensors_is_exact(self, one: list[Tensors], weights: list[float]) -> None:
        assert Tensors.mean(one * len(weights), weights).digest() == Tensors.mean(one).digest()
        assert Tensors.mean(one * len(weights), weights) == one[0]

    @given(float32s(3), st.tuples(*[st.integers(1, 1000)] * 3))
    def test_is_the_weighted_mean(self, three: list[Tensors], weights: tuple[int, ...]) -> None:
        mean = Tensors.mean(three, weights)
        for name in mean:
            expected = np.average([t[name].astype(np.float64) for t in three], axis=0, weights=weights)
            np.testing.assert_allclose(mean[name], expected, rtol=1e-6, atol=1e-9)

    @given(float32s(2))
    def test_of_two_does_not_depend_on_their_order(self, two: list[Tensors]) -> None:
        assert Tensors.mean(two).digest() == Tensors.mean(reversed(two)).digest()

    def test_of_long_vectors(self) -> None:
        t = Tensors({"a": np.arange(150_000, dtype=np.float32)})
        assert Tensors.mean([t, t + 2]) == t + 1

    def test_a_weight_of_zero_counts_for_nothing(self) -> None:
        assert Tensors.mean([example(), example() + 5], [1, 0]) == example()

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ([1], "2 tensors but 1 weights"),
            ([1, -1], "a weight is -1.0"),
            ([1, float("nan")], "a weight is nan"),
            ([0, 0], "all weights are zero"),
        ],
    )
    def test_weights_that_cannot_be(self, weights: list[float], message: str) -> None:
        with pytest.raises(CallerError, match=message):
            Tensors.mean([example(), example()], weights)

    def test_of_nothing(self) -> None:
        with pytest.raises(CallerError, match="nothing to average"):
            Tensors.mean([])

    def test_of_what_is_no_tensors(self) -> None:
        with pytest.raises(WrongType, match="mean: expected Tensors, found dict"):
            Tensors.mean([example(), {}])  # type: ignore[list-item]


class TestDigest:
    def test_depends_on_all_there_is(self) -> None:
        a = np.zeros((2, 3), np.float32)
        variants = [
            Tensors({"a": a}),
            Tensors({"b": a}),
            Tensors({"a": a.T}),
            Tensors({"a": a.astype(np.int32)}),
            Tensors({"a": a + 1}),
            Tensors({"a": a, "b": a}),
            Tensors({"b": a, "a": a}),
        ]
        assert len({t.digest() for t in variants}) == len(variants)
        assert all(len(t.digest()) == 32 for t in variants)

    def test_is_the_same_in_every_process(self) -> None:
        assert example().digest() == "a3aa4a1071ee58ba9fcf4e8fa345f1e2"


class TestFiles:
    @given(arrays=mappings())
    def test_come_back_as_they_were(self, arrays: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
        path = tmp_path_factory.mktemp("t") / "model.safetensors"
        t = Tensors(arrays)
        t.save(path)
        back = Tensors.load(path)
        assert back.spec == t.spec
        assert back.digest() == t.digest()
        assert list(path.parent.iterdir()) == [path]

    def test_are_read_by_safetensors(self, tmp_path: Any) -> None:
        from safetensors.torch import load_file

        values = torch.tensor([1.5, -2.0]).to(torch.bfloat16)
        Tensors({"n": np.arange(3), "h": values, "w": np.ones((2, 2), np.float32)}).save(tmp_path / "m.safetensors")
        found = load_file(tmp_path / "m.safetensors")
        assert found.keys() == {"n", "h", "w"}
        assert torch.equal(found["h"], values)
        assert found["n"].tolist() == [0, 1, 2]

    def test_of_other_programs_are_read(self, tmp_path: Any) -> None:
        from safetensors.numpy import save_file

        save_file({"w": np.ones((2, 2), np.float32)}, tmp_path / "m.safetensors")
        assert Tensors.load(tmp_path / "m.safetensors")["w"].tolist() == [[1, 1], [1, 1]]

    def test_that_are_missing_or_damaged(self, tmp_path: Any) -> None:
        path = tmp_path / "m.safetensors"
        with pytest.raises(DataError, match=r"m.safetensors: cannot be read: No such file"):
            Tensors.load(path)
        example().save(path)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(DataError, match=r"m.safetensors: is not a whole safetensors file"):
            Tensors.load(path)
