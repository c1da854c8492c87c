"""Array kernels against their twins: every target, dtype, awkward length, offset and layout."""

from __future__ import annotations

import math
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_systems_debugger import kernels
from ml_systems_debugger.kernels.reference import arrays as twin

# dtype -> smallest normal magnitude
FLOATS = {
    "float64": 2.0**-1022,
    "float32": 2.0**-126,
    "float16": 2.0**-14,
    "bfloat16": 2.0**-126,
    "float8_e4m3fn": 2.0**-6,
    "float8_e5m2": 2.0**-14,
    "float8_e4m3fnuz": 2.0**-7,
    "float8_e5m2fnuz": 2.0**-15,
    "float8_e8m0fnu": 0.0,
}
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
# Relative error of sums: 32-bit lanes for everything but the 64-bit types.
TOLERANCE = 2e-6


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def random_bits(name: str, n: int, offset: int, seed: int) -> npt.NDArray[Any]:
    """Any bit pattern: NaN, infinities and subnormals come as they may."""
    dtype = dtype_of(name)
    raw = np.random.default_rng(seed).integers(0, 256, n * dtype.itemsize + offset, np.uint8)
    return raw[offset:].view(dtype)


def plain(name: str, n: int, offset: int, seed: int) -> npt.NDArray[Any]:
    """Ordinary values with a few special ones."""
    rng = np.random.default_rng(seed)
    dtype = dtype_of(name)
    memory = np.zeros(n * dtype.itemsize + offset, np.uint8)
    out = memory[offset:].view(dtype)
    values = rng.normal(size=n)
    with np.errstate(all="ignore"):
        out[:] = np.abs(values).astype(dtype) if "e8m0" in name else values.astype(dtype)
    return out


def check(x: npt.NDArray[Any], min_normal: float) -> None:
    before = x.tobytes()
    want = twin.tensor_stats(x, min_normal)
    got = kernels.tensor_stats(x, digest=True)
    for field in ("size", "nan", "posinf", "neginf", "zero", "subnormal", "min", "max", "absmax"):
        a, b = getattr(got, field), getattr(want, field)
        assert a == b or (math.isnan(a) and math.isnan(b)), field
    scale = want.l1 if math.isfinite(want.l1) else math.inf
    if want.size > want.nan + want.posinf + want.neginf:
        assert math.isclose(got.l2, want.l2, rel_tol=TOLERANCE)
        assert math.isclose(got.l1, want.l1, rel_tol=TOLERANCE)
        assert abs(got.mean - want.mean) <= TOLERANCE * scale
        assert math.isclose(got.std, want.std, rel_tol=1e-5, abs_tol=TOLERANCE * want.absmax)
    assert kernels.has_nonfinite(x) == twin.has_nonfinite(x)
    assert tuple(kernels.count_nonfinite(x)) == twin.count_nonfinite(x)
    assert kernels.first_nonfinite(x) == twin.first_nonfinite(x)
    assert kernels.digest(x) == got.digest == twin.digest(x)
    for norm in ("l2_norm", "l1_norm", "max_norm"):
        a, b = getattr(kernels, norm)(x), getattr(twin, norm)(x)
        if math.isfinite(b):
            assert math.isclose(a, b, rel_tol=TOLERANCE), norm
        else:
            assert not math.isfinite(a), norm
    assert x.tobytes() == before, "the input was written"


@pytest.mark.parametrize("name", FLOATS)
def test_awkward_lengths_and_offsets(target: str, name: str) -> None:
    vector = 64 // dtype_of(name).itemsize
    lengths = {
        0,
        1,
        2,
        3,
        vector - 1,
        vector,
        vector + 1,
        2 * vector + 3,
        3 * vector,
        3 * vector + 1,
    }
    for n in sorted(lengths):
        for offset in (0, 1, 2, 4, 8, 17, 33, 63):
            check(plain(name, n, offset, seed=n), FLOATS[name])


@pytest.mark.parametrize("name", [n for n in FLOATS if n != "float64"])
def test_any_bit_pattern(target: str, name: str) -> None:
    for n in (1, 5, 63, 64, 200, 2047, 2048, 2049):
        check(random_bits(name, n, 0, seed=n), FLOATS[name])


@pytest.mark.parametrize(
    "name", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
)
@pytest.mark.parametrize("only", ["negative", "positive", "one negative", "one positive", "bad"])
def test_values_of_one_sign(target: str, name: str, only: str) -> None:
    """Extremes come from bit patterns, where the two signs run in opposite directions."""
    for n in (1, 31, 32, 33, 64, 65, 127, 2048, 2049, 2048 + 8192 + 9):
        magnitude = np.abs(plain(name, n, 0, seed=n).astype(np.float64))
        signs = np.full(n, -1.0 if only in ("negative", "one positive") else 1.0)
        if only.startswith("one"):
            signs[n // 2] *= -1
        x = (magnitude * signs).astype(dtype_of(name))
        if only == "bad":
            x[:] = np.nan
        check(x, FLOATS[name])


@pytest.mark.parametrize("name", FLOATS)
def test_long_spans(target: str, name: str) -> None:
    """They are read in stretches of 8192 elements after the first 2048, shorter where it fails."""
    n = 2048 + 2 * 8192 + 77
    clean = plain(name, n, 1, seed=3)
    check(clean, FLOATS[name])
    for at in (0, 2047, 2048, 2049 + 4096, 2048 + 8192, n - 78, n - 1):
        x = clean.copy()
        x[at] = np.nan
        check(x, FLOATS[name])
    if "e8m0" in name:
        return
    x = clean.copy()
    x[2048:10240:3] = 0.0
    x[2049:10240:5] *= np.asarray(FLOATS[name]).astype(x.dtype)  # some become subnormal
    check(x, FLOATS[name])
    check(-np.abs(x.astype(np.float64)).astype(x.dtype), FLOATS[name])
    check(np.abs(clean.astype(np.float64)).astype(x.dtype), FLOATS[name])
    # The largest finite values of a format, which 8-bit ones may share with another's infinities.
    x = clean.copy()
    x[5000] = ml_dtypes.finfo(x.dtype).max
    x[12000] = ml_dtypes.finfo(x.dtype).min
    if name not in ("float64", "float32", "bfloat16"):  # their squares go beyond what sums hold
        check(x, FLOATS[name])


@pytest.mark.parametrize("name", INTEGERS)
def test_integers(target: str, name: str) -> None:
    for n in (0, 1, 7, 8, 9, 100):
        check(random_bits(name, n, 0, seed=n), 0.0)
    # Small ones, too: as floating-point numbers their bits would be finite.
    for n in (5, 64, 2048 + 8192 + 5):
        check((np.arange(n) % 100).astype(name), 0.0)


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_value_at_every_place(target: str, name: str, bad: float) -> None:
    n = 3 * 64 // dtype_of(name).itemsize + 5
    for at in range(n):
        x = plain(name, n, 0, seed=1)
        x[at] = bad
        assert kernels.first_nonfinite(x) == at
        assert kernels.has_nonfinite(x)
        assert sum(kernels.count_nonfinite(x)) == 1


@pytest.mark.parametrize(
    ("value", "dtype"), [(1e30, "f4"), (1e-42, "f4"), (1e300, "f8"), (1e-310, "f8")]
)
def test_norms_that_overflow_or_vanish_elsewhere(target: str, value: float, dtype: str) -> None:
    x = np.full(4096, value, dtype)
    want = 64.0 * float(x[0])
    for got in (
        kernels.l2_norm(x),
        kernels.tensor_stats(x).l2,
        kernels.global_norm([x[:7], x[7:]]),
    ):
        assert math.isclose(got, want, rel_tol=1e-6)


def test_an_offset_does_not_eat_the_spread(target: str) -> None:
    x = np.random.default_rng(0).normal(size=300_000) + 1e8
    stats = kernels.tensor_stats(x)
    assert math.isclose(stats.mean, math.fsum(x) / len(x), rel_tol=1e-9)
    assert math.isclose(stats.std, float(np.std(x - 1e8)), rel_tol=1e-9)


def test_accuracy_of_a_long_norm(target: str) -> None:
    x = np.random.default_rng(0).normal(0, 1e-3, 3_000_000).astype(np.float32)
    wide = x.astype(np.float64)
    assert math.isclose(kernels.l2_norm(x), math.sqrt(np.dot(wide, wide)), rel_tol=1e-9)
    brain = x.astype(ml_dtypes.bfloat16)
    wide = brain.astype(np.float64)
    assert math.isclose(kernels.l2_norm(brain), math.sqrt(np.dot(wide, wide)), rel_tol=1e-7)


def fields(stats: kernels.TensorStats) -> tuple[float, ...]:
    names = [*twin.Statistics._fields, "digest"]
    return tuple(getattr(stats, name) for name in names)


def test_the_same_bits_for_any_number_of_threads() -> None:
    x = np.random.default_rng(0).normal(size=5 * kernels.BLOCK + 999).astype(np.float32)
    found = set()
    for threads in (1, 2):
        kernels.set_num_threads(threads)
        found.add(
            (*fields(kernels.tensor_stats(x, digest=True)), kernels.l2_norm(x), kernels.digest(x))
        )
    kernels.set_num_threads(0)
    assert len(found) == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), unique=True).map(sorted), st.integers(0, 3))
def test_the_same_bits_for_any_cut_on_block_boundaries(cuts: list[int], seed: int) -> None:
    x = np.random.default_rng(seed).normal(1, 3, 4 * kernels.BLOCK + 321).astype(np.float32)
    x[::100_003] = np.nan
    edges = [0, *(c * kernels.BLOCK for c in cuts), len(x)]
    parts = [kernels.tensor_stats(x[a:b], start=a, digest=True) for a, b in pairwise(edges)]
    # Neighbours may be merged in any order.
    while len(parts) > 1:
        at = seed % (len(parts) - 1)
        parts[at : at + 2] = [parts[at].merge(parts[at + 1])]
    assert fields(parts[0]) == fields(kernels.tensor_stats(x, digest=True))


def test_parts_that_do_not_follow_each_other_are_refused() -> None:
    x = np.ones(100, np.float32)
    with pytest.raises(ValueError, match="begins at element 0"):
        kernels.tensor_stats(x).merge(kernels.tensor_stats(x))
    with pytest.raises(ValueError, match="start"):
        kernels.tensor_stats(x, start=5)


def test_many_tensors_equal_one_by_one(target: str) -> None:
    rng = np.random.default_rng(0)
    kinds = [((3, 5), "f4"), ((0,), "f8"), ((2, 2, 2), "f2"), ((kernels.BLOCK + 5,), "f4")]
    xs = [rng.normal(size=shape).astype(dtype) for shape, dtype in [*kinds, ((1,), "f8")]]
    rows = kernels.tensor_stats_many(xs, digest=True)
    for x, row in zip(xs, rows, strict=True):
        one = kernels.tensor_stats(x, digest=True)
        for name in rows.dtype.names or ():
            assert row[name] == getattr(one, name) or np.isnan(row[name])
    out = np.zeros(len(xs), kernels.STATS_DTYPE)
    assert kernels.tensor_stats_many(xs, out, digest=True) is out
    assert out.tobytes() == rows.tobytes()
    with pytest.raises(ValueError, match="out"):
        kernels.tensor_stats_many(xs, np.zeros(2, kernels.STATS_DTYPE))


def test_global_norm_over_mixed_tensors(target: str) -> None:
    rng = np.random.default_rng(0)
    xs = [rng.normal(size=n).astype(d) for n, d in [(7, "f4"), (1000, "f8"), (0, "f4"), (33, "f2")]]
    assert math.isclose(kernels.global_norm(xs), twin.global_norm(xs), rel_tol=1e-9)
    assert kernels.global_norm([]) == 0.0
    xs[1][5] = np.nan
    assert math.isnan(kernels.global_norm(xs))


class TestDigest:
    def test_sees_one_bit_and_two_swapped_values(self, target: str) -> None:
        x = np.random.default_rng(0).normal(size=4097).astype(np.float32)
        before = kernels.digest(x)
        flipped = x.copy()
        flipped.view(np.uint32)[1234] ^= 1
        swapped = x.copy()
        swapped[[10, 2000]] = swapped[[2000, 10]]
        assert len({before, kernels.digest(flipped), kernels.digest(swapped)}) == 3

    def test_many(self) -> None:
        xs = [np.arange(n, dtype=np.float32) for n in (0, 1, 5, 5000)]
        assert kernels.digest_many(xs) == [kernels.digest(x) for x in xs]


class TestInput:
    def test_layouts(self) -> None:
        x = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
        x[2, 3, 4] = np.nan
        for view in (
            x,
            x[::2],
            x[:, ::-1],
            x.T,
            x[..., 3],
            x[2, 3, 4],
            x[:0],
            np.asfortranarray(x),
        ):
            check(view, FLOATS["float32"])

    def test_other_holders(self) -> None:
        x = np.array([1.0, np.nan, 3.0], np.float32)
        readonly = x.copy()
        readonly.flags.writeable = False
        for held in (readonly, memoryview(x), x.astype(">f4"), 1.5 + 0 * x):
            assert kernels.first_nonfinite(held) == 1
        assert kernels.l2_norm(3.0) == 3.0
        assert kernels.first_nonfinite(np.array([1 + 1j, complex(0, np.inf)])) == 3
        assert kernels.tensor_stats(np.array([True, False])).zero == 1

    def test_raw_bytes(self) -> None:
        x = np.array([1.0, np.inf], ml_dtypes.bfloat16)
        raw = x.tobytes()
        assert kernels.first_nonfinite(raw, dtype="bfloat16") == 1
        assert kernels.first_nonfinite(bytearray(raw), dtype="bfloat16") == 1
        with pytest.raises(ValueError, match="no whole number"):
            kernels.has_nonfinite(raw[:3], dtype="bfloat16")
        with pytest.raises(ValueError, match="dtype"):
            kernels.has_nonfinite(raw, dtype="float7")

    @pytest.mark.parametrize("wrong", ["text", None, [1.0], {"a": 1}, np.array(["a"]), object()])
    def test_no_array_is_refused_with_its_type(self, wrong: object) -> None:
        with pytest.raises(TypeError, match="x"):
            kernels.has_nonfinite(wrong)

    def test_wrong_calls(self) -> None:
        with pytest.raises(TypeError):
            kernels.has_nonfinite()  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="axis"):
            kernels.has_nonfinite(np.ones(3), axis=0)  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            kernels.global_norm(3)  # type: ignore[arg-type]


class TestTorch:
    torch = pytest.importorskip("torch", reason="torch is not installed")

    @pytest.mark.parametrize(
        "name", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
    )
    def test_every_dtype_without_a_copy(self, name: str) -> None:
        values = self.torch.tensor([1.0, 2.0, float("nan")]).to(getattr(self.torch, name))
        assert kernels.first_nonfinite(values) == 2
        assert kernels.tensor_stats(values).max == 2.0

    def test_parameters_views_and_lists(self) -> None:
        w = self.torch.nn.Parameter(self.torch.arange(12.0).reshape(3, 4))
        norm = float(w.detach().norm())
        column = float(w.detach()[:, 1].norm())
        assert math.isclose(kernels.l2_norm(w), norm, rel_tol=1e-6)
        assert math.isclose(kernels.l2_norm(w.T), norm, rel_tol=1e-6)
        assert math.isclose(kernels.l2_norm(w[:, 1]), column, rel_tol=1e-6)
        assert math.isclose(kernels.global_norm([w, w]), norm * 2**0.5, rel_tol=1e-6)
        z = self.torch.tensor([1 + 2j, 3 - 4j])
        assert kernels.tensor_stats(z.conj()).min == -2.0

    def test_what_cannot_be_read_is_refused(self) -> None:
        with pytest.raises(TypeError, match="meta"):
            kernels.has_nonfinite(self.torch.empty(3, device="meta"))
        with pytest.raises(TypeError, match="sparse"):
            kernels.has_nonfinite(self.torch.eye(3).to_sparse())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_shape_and_stride(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(0, 9), max_size=4))
    x = random_bits(data.draw(st.sampled_from(["float32", "bfloat16", "float16"])),
                    math.prod(shape), data.draw(st.integers(0, 7)), 0).reshape(shape)  # fmt: skip
    index = tuple(slice(None, None, data.draw(st.sampled_from([1, 2, -1, -3, 4]))) for _ in shape)
    view = x[index].transpose(data.draw(st.permutations(range(x.ndim))))
    assert kernels.first_nonfinite(view) == twin.first_nonfinite(view)
    assert kernels.digest(view) == twin.digest(view)


FILE_DTYPES = {"float64": 0, "float32": 1, "float16": 2, "bfloat16": 3, "float8_e4m3fn": 4,
               "int8": 9, "int64": 12, "uint16": 14}  # fmt: skip


@pytest.mark.parametrize("dtype", FILE_DTYPES)
@pytest.mark.parametrize("count", [1, 2047, 65536, 65537, 200_001, 1 << 20])
def test_a_block_of_a_file_in_pieces_is_the_block_at_once(
    tmp_path: Path, dtype: str, count: int
) -> None:
    rng = np.random.default_rng(count)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    values = rng.normal(0, 20, count).astype(kind)
    whole = bytes(13) + values.tobytes() + bytes(5)
    (tmp_path / "x").write_bytes(whole)
    span = np.zeros(1, kernels.SPAN_DTYPE)
    span[0] = (0, count, 8 * 7, FILE_DTYPES[dtype])
    expected, row = np.zeros((2, 1), kernels.ROW_DTYPE)
    kernels.measure_spans(values.view(np.uint8), span, expected)
    buffer = bytearray(kernels.PIECE * kind.itemsize)
    with (tmp_path / "x").open("rb") as source:
        # A value alone is far from zero against its spread.
        whole_needed = count == 1 and values[0] != 0
        assert kernels.measure_file(source.fileno(), 13, span, buffer, row) == whole_needed
        assert whole_needed or row.tobytes() == expected.tobytes()
        # A buffer of several pieces, and of more than is read at once; with the checksum.
        for pieces in (1, 3, 40):
            room = bytearray(pieces * kernels.PIECE * kind.itemsize)
            row[:], crc = 0, np.zeros(1, np.uint32)
            code = kernels.measure_file(source.fileno(), 13, span, room, row, crc)
            assert code == whole_needed
            if code == 0:
                assert row.tobytes() == expected.tobytes()
                assert crc[0] == zlib.crc32(values.tobytes())
        row[:] = 0
        # Far from zero, or not finite: it says that it has to be seen whole, and writes nothing.
        if kind.kind not in "iu":
            for bad in (np.full(count, 1e3) + rng.normal(size=count), np.full(count, np.nan)):
                changed = bad.astype(kind)
                if not np.isfinite(changed.astype("f4")).all() or count > 2048:
                    (tmp_path / "y").write_bytes(changed.tobytes())
                    row[:] = 0
                    with (tmp_path / "y").open("rb") as other:
                        code = kernels.measure_file(other.fileno(), 0, span, buffer, row)
                    assert code == 1
                    assert not row.tobytes().strip(b"\0")
        assert kernels.measure_file(source.fileno(), len(whole), span, buffer, row) == 2
        with pytest.raises(ValueError, match="buffer"):
            kernels.measure_file(source.fileno(), 0, span, bytearray(8), row)
    assert kernels.measure_file(999, 0, span, buffer, row) < 0


@pytest.mark.parametrize(("count", "size"), [(3, 1), (200, 7), (300, 5), (2, 5000), (1, 2 << 20)])
def test_sums_of_squares_that_are_too_large_together(count: int, size: int) -> None:
    """Each sum is finite, and so is the norm; the sum of the sums is more than a double holds."""
    whole = 1 << 20 if size > 1 << 20 else size  # of a block
    value = np.sqrt(1.5e308 / whole)
    arrays = [np.full(size, value) for _ in range(count)]
    expected = value * np.sqrt(float(count * size))
    assert kernels.global_norm(arrays) == pytest.approx(expected, rel=1e-12)
    assert kernels.l2_norm(np.concatenate(arrays)) == pytest.approx(expected, rel=1e-12)
    assert kernels.global_norm([*arrays, np.array([np.inf])]) == np.inf
