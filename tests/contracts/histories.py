"""Histories of runs, healthy and not, with every quantity that a detector may read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from ml_systems_debugger import Series, SeriesKey, SeriesKind, SignalSet
from ml_systems_debugger.core import SeriesTable, TableKeys

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


def series(name: str, values: object, start: int = 0, stride: int = 1, **key: object) -> Series:
    """Return a series whose steps are evenly spaced."""
    kind = key.get("kind", SeriesKind.SCALAR)
    dtype = {SeriesKind.SCALAR: np.float64, SeriesKind.DIGEST: np.uint64}.get(kind, object)  # type: ignore[call-overload]
    held = np.asarray(values, dtype=dtype) if dtype is not object else _objects(values)
    steps = start + stride * np.arange(len(held))
    return Series(SeriesKey(name, **key), steps, held)  # type: ignore[arg-type]


def _objects(values: object) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    listed = list(values)  # type: ignore[call-overload]
    held = np.empty(len(listed), object)
    for at, value in enumerate(listed):
        held[at] = value
    return held


def healthy(seed: int, n: int = 400) -> SignalSet:
    """A run in which nothing goes wrong: learning, then converged, with ordinary noise."""
    rng = np.random.default_rng(seed)
    steps = np.arange(n)
    falling = 2.0 * np.exp(-steps / (n / 6)) + 0.4
    noise = rng.normal(0, 0.03, n)
    evaluations = falling[::20] * 1.05 + rng.normal(0, 0.01, len(falling[::20]))
    found = [
        series("loss", falling * np.exp(noise)),
        series("loss", evaluations, stride=20, split="val"),
        series("accuracy", 1 - evaluations / 3, stride=20, split="val"),
        series("lr", np.full(n, 1e-3)),
        series("grad_norm", np.exp(rng.normal(0, 0.25, n)) * (0.5 + falling)),
        series("step_time", rng.normal(0.1, 0.003, n)),
        series("input_std", np.exp(rng.normal(0, 0.05, n))),
        series("param_norm", 3.0 + np.sqrt(steps / 40), layer="a.weight"),
        series("param_norm", 9.0 + 0.001 * np.cumsum(rng.normal(0, 1, n)), layer="b.weight"),
    ]
    found += [
        series("grad_norm", np.exp(rng.normal(0, 0.25, n)), layer=layer)
        for layer in ("a.weight", "b.weight")
    ]
    shared = np.exp(rng.normal(0, 0.2, n))
    for replica in range(4):
        own = shared * (1 + rng.normal(0, 1e-6, n))
        found.append(series("grad_norm", own, layer="c.weight", replica_id=replica))
        digests = np.arange(n, dtype=np.uint64)
        found.append(series("param_digest", digests, kind=SeriesKind.DIGEST, replica_id=replica))
        pace = 0.1 * (1 + 0.05 * replica) * np.exp(rng.normal(0, 0.03, n))
        found.append(series("step_time", pace, replica_id=replica))
        waited = 0.05 * np.exp(rng.normal(0, 0.3, n)) * pace
        found.append(series("data_time", waited, replica_id=replica))
    found += [
        series("memory_allocated", 40 + rng.normal(0, 0.3, n)),
        series("memory_reserved", np.full(n, 60.0)),
        series("memory_total", np.full(n, 80.0)),
    ]
    arrays = [rng.normal(size=8) for _ in range(12)]
    found.append(series("gradient", arrays, stride=30, kind=SeriesKind.ARRAY, layer="a.weight"))
    found += [
        series("feature", rng.normal(size=n), split=split, layer="age")
        for split in ("train", "serving")
    ]
    return SignalSet(found)


def _change(
    name: str, change: Callable[[Floats, np.random.Generator], Floats]
) -> Callable[..., SignalSet]:
    def apply(run: SignalSet, rng: np.random.Generator) -> SignalSet:
        parts = []
        for one in run.series:
            values = one.values
            if (
                one.key.name == name
                and one.kind is SeriesKind.SCALAR
                and one.key.replica_id in (None, 2)
            ):
                values = change(values.copy(), rng)
            parts.append(Series(one.key, one.steps, values))
        return SignalSet(parts)

    return apply


def _nan(values: Floats, rng: np.random.Generator) -> Floats:
    at = int(rng.integers(len(values)))
    values[at : at + int(rng.integers(1, len(values) + 1))] = rng.choice([np.nan, np.inf, -np.inf])
    return values


def _sprinkled(values: Floats, rng: np.random.Generator) -> Floats:
    values[rng.random(len(values)) < 0.1] = np.nan
    return values


def _jump(values: Floats, rng: np.random.Generator) -> Floats:
    values[int(rng.integers(len(values))) :] *= 10.0 ** rng.integers(1, 6)
    return values


def _spikes(values: Floats, rng: np.random.Generator) -> Floats:
    values[rng.random(len(values)) < 0.02] *= 50
    return values


def _flat(values: Floats, rng: np.random.Generator) -> Floats:
    at = int(rng.integers(len(values)))
    values[at:] = values[at]
    return values


def _fade(values: Floats, rng: np.random.Generator) -> Floats:
    at = int(rng.integers(len(values)))
    values[at:] *= np.exp(-np.arange(len(values) - at) / 5.0)
    return values


def _grow(values: Floats, rng: np.random.Generator) -> Floats:
    at = int(rng.integers(len(values)))
    values[at:] += 30.0 * np.arange(len(values) - at) / len(values)
    return values


FAULTS = {
    f"{name}:{change.__name__}": _change(name, change)
    for name in (
        "loss",
        "grad_norm",
        "accuracy",
        "lr",
        "step_time",
        "data_time",
        "input_std",
        "param_norm",
    )
    for change in (_nan, _sprinkled, _jump, _spikes, _flat, _fade)
} | {f"{name}:_grow": _change(name, _grow) for name in ("memory_allocated", "memory_reserved")}


def odd_digest(run: SignalSet, rng: np.random.Generator) -> SignalSet:
    """One replica's parameters part from the others'."""
    at = int(rng.integers(400))
    parts = []
    for one in run.series:
        values = one.values
        if one.kind is SeriesKind.DIGEST and one.key.replica_id == 1:
            values = values.copy()
            values[at:] += np.uint64(7)
        parts.append(Series(one.key, one.steps, values))
    return SignalSet(parts)


def bad_array(run: SignalSet, rng: np.random.Generator) -> SignalSet:
    """Arrays that turn non-finite at some step."""
    at = int(rng.integers(12))
    parts = []
    for one in run.series:
        values = one.values
        if one.kind is SeriesKind.ARRAY:
            arrays = [np.array(a) for a in values]
            for array in arrays[at:]:
                array[3] = np.nan
            values = _objects(arrays)
        parts.append(Series(one.key, one.steps, values))
    return SignalSet(parts)


def restarted(run: SignalSet, rng: np.random.Generator) -> SignalSet:
    """The run goes back to an earlier step and continues as its next segment."""
    at = int(rng.integers(50, 350))
    if any(one.key.segment for one in run.series):
        return run
    parts = list(run.series)
    for one in run.series:
        again = one.between(at, None)
        if one.kind is SeriesKind.SCALAR and len(again):
            parts.append(Series(one.key._replace(segment=1), again.steps, again.values))
    return SignalSet(parts)


ALL_FAULTS = {**FAULTS, "digest": odd_digest, "array": bad_array, "restart": restarted}


@st.composite
def histories(draw: st.DrawFn) -> SignalSet:
    """A healthy run with up to three faults in it."""
    seed = draw(st.integers(0, 2**16))
    run = healthy(seed, draw(st.sampled_from([60, 200, 400])))
    for at, name in enumerate(draw(st.lists(st.sampled_from(sorted(ALL_FAULTS)), max_size=3))):
        run = ALL_FAULTS[name](run, np.random.default_rng([seed, at]))
    return run


@st.composite
def cuts(draw: st.DrawFn) -> list[int]:
    """Steps at which a history is cut into chunks, from none to every one."""
    if draw(st.booleans()):
        width = draw(st.sampled_from([1, 3, 7, 50, 64]))
        return list(range(width, 400, width))
    return sorted(draw(st.sets(st.integers(1, 399), max_size=12)))


def tabled(chunk: SignalSet, known: dict[tuple[SeriesKey, ...], TableKeys]) -> SignalSet:
    """Return a chunk with scalars of equal steps as tables, as the live monitor gives them."""
    groups: dict[tuple[bool, bytes], list[Series]] = {}
    singles = []
    for one in chunk.series:
        if one.kind is SeriesKind.SCALAR and len(one):
            groups.setdefault((one.key.layer is None, one.steps.tobytes()), []).append(one)
        else:
            singles.append(one)
    tables = []
    for group in groups.values():
        keys = tuple(one.key for one in group)
        columns = known.setdefault(keys, TableKeys(keys))
        values = np.stack([one.values for one in group], axis=1)
        tables.append(SeriesTable(columns, group[0].steps.copy(), values))
    return SignalSet.of_tables(tables, singles)
