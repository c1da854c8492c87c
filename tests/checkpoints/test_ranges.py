"""Exponents of the values: exact counts of what narrower types lose, whole or in parts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ml_systems_debugger.checkpoints import Options, merge, scan, scan_shard
from ml_systems_debugger.checkpoints._ranges import TARGETS, RangeCounts, range_counts
from ml_systems_debugger.checkpoints.dtypes import DTYPES
from ml_systems_debugger.kernels import tensor_stats

RANGES = Options(ranges=True)
SOURCES = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


def spread(dtype: str, seed: int = 0) -> torch.Tensor:
    """Values of every magnitude of the type, ties among them, zeros, what is not finite."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (6000,), generator=generator) * 2 - 1
    wide = torch.ldexp(
        torch.rand(6000, generator=generator, dtype=torch.float64) + 1,
        torch.randint(-160, 140, (6000,), generator=generator),
    )
    ties = torch.ldexp(torch.ones(300, dtype=torch.float64), torch.arange(-160, 140))
    odd = torch.tensor([0.0, -0.0, float("nan"), 448.0, 464.0, 480.0, 57344.0, 61440.0, 65504.0,
                        65519.0, 65520.0], dtype=torch.float64)  # fmt: skip
    values = torch.cat([wide * signs, ties, -1.5 * ties, odd])
    if dtype != "float8_e4m3fn":
        values = torch.cat([values, torch.tensor([float("inf"), -float("inf")])])
    return values.to(getattr(torch, dtype))


def raw(values: torch.Tensor) -> np.ndarray:
    return values.contiguous().view(torch.uint8).numpy().reshape(-1)


def counted(values: torch.Tensor) -> RangeCounts:
    name = str(values.dtype).removeprefix("torch.")
    stats = tensor_stats(raw(values), dtype=name)
    terms = {n: getattr(stats, n) for n in ("nan", "posinf", "neginf", "zero")}
    return range_counts(raw(values), DTYPES[name], {**terms, "count": stats.size})


# Overflow begins where the next value above the largest would be, halfway; ties go to even.
LIMITS = {"float16": (65520.0, False), "bfloat16": (float.fromhex("0x1.ffp127"), False),
          "float8_e4m3fn": (464.0, True), "float8_e5m2": (61440.0, False)}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_losses_are_those_of_a_conversion(source: str, target: str) -> None:
    values = spread(source)
    found = counted(values)
    wide = values.to(torch.float64).abs()
    wide = wide[torch.isfinite(wide) & (wide > 0)]
    bound, tie_fits = LIMITS[target]
    kept = wide <= bound if tie_fits else wide < bound
    kind = getattr(torch, target)
    info = torch.finfo(kind)
    # By grid: below the smallest normal value, multiples of the smallest subnormal one.
    step = info.smallest_normal * info.eps
    rounded = torch.round(wide / step) * step  # half to even, as the conversion rounds
    zero = (rounded == 0).sum().item()
    small = ((rounded > 0) & (rounded < info.smallest_normal)).sum().item()
    assert found.alive == len(wide)
    at = TARGETS.index(target)
    narrower = DTYPES[source].name != target and (
        torch.finfo(values.dtype).max > info.max
        or torch.finfo(values.dtype).smallest_normal * torch.finfo(values.dtype).eps < step
    )
    expected = [(~kept).sum().item(), small, zero] if narrower else [0, 0, 0]
    assert found.lost[at].tolist() == expected
    if narrower and source != "float64":  # torch rounds float64 twice on its way to 8 bits
        cast = values.to(torch.float32).abs()
        cast = cast[torch.isfinite(cast) & (cast > 0)].to(kind).to(torch.float64)
        assert (cast == 0).sum().item() == zero


def test_parts_add_up_to_the_whole() -> None:
    values = spread("float32")
    whole = counted(values)
    for cuts in ([1000], [1, 2, 3000], [6000]):
        sums = [counted(p) for p in torch.tensor_split(values, cuts)]
        total = sums[0]
        for part in sums[1:]:
            total = total.add(part)
        assert total.to_list() == whole.to_list()
    again = RangeCounts.from_list(json.loads(json.dumps(whole.to_list())))
    assert again.to_dict() == whole.to_dict()
    with pytest.raises(ValueError, match="ranges of 4 types"):
        RangeCounts.from_list([0, [], 0, [[1, 2, 3]]])


def test_nothing_alive_has_no_shares() -> None:
    found = counted(torch.tensor([0.0, float("nan"), float("inf")]))
    assert found.alive == 0
    assert found.share("float16", "zero") == 0.0
    assert found.vanishing("float8_e5m2") == 0.0


def test_what_vanishes_under_the_best_scale() -> None:
    """A scale is part of every use of 8 bits: small values alone are no trouble, outliers are."""
    normal = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    for scale in (1e-6, 1.0, 1e6):
        assert counted(normal * scale).vanishing("float8_e4m3fn") < 1e-3
    outliers = normal.clone()
    outliers[:3] = 1e6
    found = counted(outliers)
    assert found.vanishing("float8_e4m3fn") > 0.9
    scaled = outliers * 2.0**-12  # the largest, 1e6, in the last whole power of two of 448
    lost = (scaled.to(torch.float8_e4m3fn).to(torch.float32) == 0).float().mean().item()
    assert found.vanishing("float8_e4m3fn") == pytest.approx(lost, abs=0.01)


def test_findings_with_severity_and_evidence(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(scale=0.02, size=(64, 64)).astype(np.float32)
    over, tiny = weights.copy(), (weights * 1e-6).astype(np.float32)
    over[3, 4] = 1e5
    np.savez(tmp_path / "m.npz", fine=weights, over=over, tiny=tiny)
    report = scan(tmp_path / "m.npz", options=RANGES)
    found = {(f.tensor, f.evidence["target"]): f for f in report.findings if f.code == "range"}
    assert set(found) == {
        ("over", "float16"), ("tiny", "float16"), ("over", "float8_e4m3fn"),
    }  # fmt: skip
    assert found["over", "float16"].severity == "medium"
    assert found["over", "float16"].evidence["overflow_share"] == pytest.approx(1 / 4096)
    assert found["tiny", "float16"].evidence["zero_share"] > 0.5
    assert found["over", "float8_e4m3fn"].severity == "low"
    plain = scan(tmp_path / "m.npz")
    assert [(f.tensor, f.severity.value) for f in plain.findings if f.code == "range"] == [
        ("over", "low")
    ]
    assert all("ranges" not in t.to_dict() for t in plain.tensors)


def test_shards_merge_to_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    big = rng.normal(size=(1500, 2000)).astype(np.float32) ** 9
    np.savez(tmp_path / "m.npz", big=big, small=big[:40, :50], whole=np.arange(3000))
    one = scan(tmp_path / "m.npz", options=RANGES)
    shards = [
        json.loads(json.dumps(scan_shard(tmp_path / "m.npz", (n, 3), options=RANGES)))
        for n in (1, 2, 3)
    ]
    merged = merge(shards)
    assert [t.to_dict() for t in merged.tensors] == [t.to_dict() for t in one.tensors]
    assert [f.to_dict() for f in merged.findings] == [f.to_dict() for f in one.findings]
    assert one.tensors[0].ranges is not None
    assert one.tensors[0].ranges.alive == np.count_nonzero(big)
    assert one.tensors[2].ranges is None
