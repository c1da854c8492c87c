"""What the monitor measures of many tensors: against NumPy and the norms of one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger.kernels import l2_norm
from ml_systems_debugger.kernels.live import live_moves, live_norms


def measured(xs: Any, **more: Any) -> tuple[float, list[float], list[bool]]:
    norms, there = np.full(len(xs), -1.0), np.zeros(len(xs), np.bool_)
    total = live_norms(xs, norms, there, **more)
    return total, norms.tolist(), there.tolist()


def arrays(seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=(5, 7)).astype(np.float32),
        rng.normal(size=3),
        np.zeros(0, np.float32),
        rng.normal(size=(1 << 20) + 17).astype(np.float32),
        rng.normal(size=(6, 8)).astype(np.float16)[:, ::2],
        np.full(4096, 1e30, np.float32),
    ]


@pytest.mark.parametrize("kind", [list, tuple])
def test_norms_are_those_of_each_alone(kind: Any) -> None:
    xs = kind(arrays())
    total, norms, there = measured(xs)
    assert norms == [l2_norm(x) for x in xs]
    assert all(there)
    assert total == pytest.approx(np.sqrt(np.square(norms).sum()), rel=1e-12)
    # Small ones alone go another way.
    assert measured(xs[:3])[1] == norms[:3]


def test_of_an_attribute_and_what_is_not_there() -> None:
    held = [SimpleNamespace(grad=x) for x in (np.ones(4), None, np.full(9, 2.0))]
    assert measured(held, attribute="grad") == (np.sqrt(40), [2, 0, 6], [True, False, True])
    assert measured([]) == (0.0, [], [])
    with pytest.raises(AttributeError, match="grad"):
        measured([np.ones(2)], attribute="grad")


def test_what_is_not_finite_is_told_apart() -> None:
    bad = [np.array([1.0, np.nan, np.inf]), np.array([1, -np.inf], np.float16), np.ones(1)]
    total, norms, _ = measured(bad)
    assert np.isnan(norms[0])
    assert norms[1:] == [np.inf, 1.0]
    assert np.isnan(total)
    assert measured(bad[1:])[0] == np.inf
    long = np.ones((1 << 20) + 5, np.float32)
    long[-1] = np.inf
    assert measured([long])[1] == [np.inf]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="norms: 16 bytes are needed, got 8"):
        live_norms([np.ones(1)] * 2, np.zeros(1), np.zeros(2, np.bool_))
    with pytest.raises(TypeError, match="no array of numbers"):
        measured([object()])
    with pytest.raises(TypeError, match="elements of this type"):
        live_moves([np.ones(3, np.int32)], np.zeros(1), np.zeros((1, 4)), np.zeros(1), known=False)


def reference(new: Any, old: Any, width: int) -> float:
    stride = max(1, new.size // width)
    a, b = (x.reshape(-1)[::stride][:width].astype(np.float64) for x in (new, old))
    size, away = np.linalg.norm(b), np.linalg.norm(a - b)
    return float(away / size) if size else (np.inf if away else 0.0)


@pytest.mark.parametrize("width", [16, 4096])
def test_movements_of_a_sample(width: int) -> None:
    rng = np.random.default_rng(1)
    old = [
        rng.normal(size=(3, 5)).astype(np.float32),
        rng.normal(size=10_000),
        rng.normal(size=4097).astype(np.float16),
        np.zeros(8),
        np.zeros(8),
        np.zeros(0),
    ]
    new = [x * 1.25 for x in old]
    new[2] = (old[2] * 2).astype(np.float16)
    new[3] = np.ones(8)
    norms, moved, samples = np.zeros(6), np.full(6, -1.0), np.zeros((6, width))
    live_moves(old, norms, samples, moved, known=False)
    assert (moved == -1).all()
    live_moves(new, norms, samples, moved, known=True)
    expected = [reference(n, o, width) for n, o in zip(new, old, strict=True)]
    assert moved.tolist() == pytest.approx(expected, rel=1e-12)
    assert norms.tolist() == [l2_norm(x) for x in new]
    live_moves(new, norms, samples, moved, known=True)
    assert moved.tolist() == [0.0] * 6
    broken = [np.full_like(x, np.nan) for x in new]
    live_moves(broken, norms, samples, moved, known=True)
    assert np.isnan(moved[:5]).all()


def test_every_half_is_read_rightly() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    samples, one = np.zeros((1, len(every))), np.zeros(1)
    live_moves([every], one, samples, one.copy(), known=False)
    assert (samples[0] == every.astype(np.float64)).all()


def test_tensors_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(2)
    parameters = [torch.nn.Parameter(torch.tensor(rng.normal(size=(4, k)))) for k in (1, 3, 9)]
    parameters.append(torch.nn.Parameter(torch.zeros(3, dtype=torch.bfloat16)))
    for p in parameters[:3]:
        p.grad = torch.tensor(rng.normal(size=p.shape))
    total, norms, there = measured(tuple(parameters), attribute="grad")
    assert norms == [float(l2_norm(p.grad.numpy())) for p in parameters[:3]] + [0.0]
    assert there == [True, True, True, False]
    assert total == pytest.approx(float(np.linalg.norm(norms)), rel=1e-12)
    table = torch.nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1, 3])).sum().backward()
    assert measured([table.weight], attribute="grad") == (0.0, [0.0], [False])
    samples, moved, sizes = np.zeros((4, 16)), np.zeros(4), np.zeros(4)
    live_moves(parameters, sizes, samples, moved, known=False)
    with torch.no_grad():
        for p in parameters:
            p.mul_(1.5).add_(1.0)
    live_moves(parameters, sizes, samples, moved, known=True)
    assert moved[3] == np.inf
    assert sizes[3] == pytest.approx(np.sqrt(3))
