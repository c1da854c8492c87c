"""Tensors with NaN and Inf at known places, and what a scan must say of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ml_systems_debugger import kernels
from ml_systems_debugger.checkpoints import STATISTICS, CheckpointReport

FLOATS = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.complex64,
)  # fmt: skip
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
WITHOUT_INF = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def planted(shape: tuple[int, ...] = (33, 45), seed: int = 0) -> dict[str, torch.Tensor]:
    """One tensor for each type; floats with a NaN at [3, 4] and, if there is one, Inf at [2, 1]."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for dtype in FLOATS:
        kind = torch.complex64 if dtype.is_complex else torch.float32
        values = torch.randn(shape, generator=generator, dtype=kind)
        values[3, 4] = float("nan")
        if dtype not in WITHOUT_INF:
            values[2, 1] = float("-inf")
        out[name_of(dtype)] = values.to(dtype)
        out[f"clean_{name_of(dtype)}"] = torch.randn(shape, generator=generator, dtype=kind).to(
            dtype
        )
    for dtype in INTEGERS:
        out[name_of(dtype)] = torch.randint(0, 2, shape, generator=generator).to(dtype)
    return out


def first_of(name: str) -> tuple[int, int] | None:
    if name.startswith("clean") or name not in {name_of(d) for d in FLOATS}:
        return None
    return (3, 4) if name in {name_of(d) for d in WITHOUT_INF} else (2, 1)


def raw_bytes(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def check_report(report: CheckpointReport, tensors: Mapping[str, torch.Tensor]) -> None:
    """Every tensor is there, with the statistics and the digest that the kernels give in memory."""
    records = {t.name: t for t in report.tensors}
    assert set(records) == set(tensors)
    assert not report.unread
    bad = {f.tensor for f in report.findings if f.code in ("nan", "inf")}
    for name, tensor in tensors.items():
        record = records[name]
        assert record.shape == tuple(tensor.shape), name
        expected = expected_stats(tensor)
        assert record.stats is not None, name
        for statistic in STATISTICS:
            assert same(record.stats[statistic], expected[statistic]), (name, statistic)
        assert record.digest == expected["digest"], name
        base = re.split("[.:]", name)[-1]
        assert record.first_nonfinite == first_of(base), name
        assert (name in bad) == (first_of(base) is not None), name


def expected_stats(tensor: torch.Tensor) -> dict[str, Any]:
    data = np.frombuffer(raw_bytes(tensor), np.uint8)
    dtype = name_of(tensor.dtype)
    dtype = {"bool": "uint8", "complex64": "float32", "complex128": "float64"}.get(dtype, dtype)
    stats = kernels.tensor_stats(data, dtype=dtype)
    out = {name: getattr(stats, name) for name in STATISTICS}
    out["digest"] = f"{kernels.digest(data):016x}"
    return out


def same(a: float, b: float) -> bool:
    return a == b or (a != a and b != b)
