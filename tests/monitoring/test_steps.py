"""The buffer of the last steps: what goes in comes out, whatever is missing in between."""

from __future__ import annotations

import numpy as np

from ml_systems_debugger.core import SeriesKey, SignalSet
from ml_systems_debugger.monitoring._steps import StepBuffer

LAYERS = [SeriesKey("grad_norm", layer=f"layer.{k}") for k in range(5)]
LOSS, HELD_OUT = SeriesKey("loss"), SeriesKey("loss", "val")


def content(run: SignalSet) -> dict[SeriesKey, tuple[list[int], list[float]]]:
    return {s.key: (s.steps.tolist(), s.values.tolist()) for s in run.series}


def test_what_is_always_there_is_one_table_with_the_same_keys() -> None:
    buffer, keys = StepBuffer(4), []
    for block in range(3):
        for step in range(4 * block, 4 * block + 4):
            buffer.begin(step)
            buffer.put(LOSS, float(step))
            buffer.put_group("g", buffer.group("g", LAYERS), step + np.arange(5) / 8)
        assert buffer.full
        run = buffer.drain()
        assert run.singles == ()
        assert [t.values.shape for t in run.tables] == [(4, 6)]
        keys.append(run.tables[0].keys)
        steps = list(range(4 * block, 4 * block + 4))
        assert content(run) == {
            LOSS: (steps, [float(s) for s in steps]),
            **{key: (steps, [s + k / 8 for s in steps]) for k, key in enumerate(LAYERS)},
        }
        assert len(run) == 24
    assert keys[0] is keys[1] is keys[2]


def test_any_pattern_of_what_is_missing_comes_back() -> None:
    rng = np.random.default_rng(0)
    buffer = StepBuffer(7)
    order = [LAYERS[k] for k in (3, 0, 4)]
    for block in range(40):
        expected: dict[SeriesKey, tuple[list[int], list[float]]] = {}
        for step in range(7 * block, 7 * block + 7):
            buffer.begin(step)
            for key, chance in ((LOSS, 0.9), (HELD_OUT, 0.3)):
                if rng.random() < chance:
                    buffer.put(key, float(rng.normal()))
                    expected.setdefault(key, ([], []))[0].append(step)
                    expected[key][1].append(buffer.scalars()[-1][1])
            own = order if block < 10 else LAYERS
            if rng.random() < 0.8:
                values, there = rng.normal(size=len(own)), rng.random(len(own)) < block / 30
                if block == 25:
                    there[:] = True
                buffer.put_group("g", buffer.group("g", own), values, there)
                for key, value, here in zip(own, values.tolist(), there, strict=True):
                    if here:
                        expected.setdefault(key, ([], []))[0].append(step)
                        expected[key][1].append(value)
            row = np.full(buffer.columns(), -99.0)
            buffer.fill(row)
            told = {k: v for k, v in zip(buffer.keys, row.tolist(), strict=True) if v != -99.0}
            short = np.full(3, -99.0)
            buffer.fill(short)
            assert short.tolist()[: len(row)] == row[:3].tolist()
            assert told == {k: v[-1] for k, (s, v) in expected.items() if s[-1] == step}
        assert content(buffer.drain()) == expected


def test_the_last_word_counts_and_what_is_measured_before_what_is_logged() -> None:
    buffer = StepBuffer(2)
    buffer.begin(0)
    buffer.put(LOSS, 1.0)
    buffer.put(LOSS, 2.0)
    buffer.put(LAYERS[1], 9.0)
    buffer.put_group("g", buffer.group("g", LAYERS), np.arange(5.0))
    found = content(buffer.drain())
    assert found[LOSS] == ([0], [2.0])
    assert found[LAYERS[1]] == ([0], [1.0])
