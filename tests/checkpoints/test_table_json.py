"""Reports as JSON: the quick way over columns writes what the plain one does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ml_systems_debugger.checkpoints import CheckpointReport, Options, TensorTable, inspect, scan

save_file = pytest.importorskip("safetensors.torch").save_file


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tensors of every kind of record: NaN, empty, opaque, narrow, scalar, odd names, many."""
    path = tmp_path_factory.mktemp("odd") / "m.safetensors"
    state = {f"layers.{i}.w": torch.randn(2, 3) * 10.0 ** (i % 60 - 30) for i in range(5000)}
    state |= {
        "nan": torch.tensor([1.0, float("nan")]), "all_nan": torch.full((3,), float("nan")),
        "empty": torch.zeros(0, 4), "scalar": torch.tensor(2.5), "ids": torch.arange(9),
        "half": torch.ones(4).half(), "flags": torch.ones(3, dtype=torch.bool),
        'quo"te\\ \n %s ü \u202e': torch.ones(2), "@min": torch.ones(2), "zeros": torch.zeros(8),
        "big": torch.full((2,), 3e38, dtype=torch.float64) * 1e100,
    }  # fmt: skip
    save_file(state, path)
    return path


def plain(report: CheckpointReport) -> dict[str, object]:
    return {**report.to_dict(), "tensors": [t.to_dict() for t in report.tensors]}


@pytest.mark.parametrize("ranges", [False, True])
def test_terms_and_text_are_those_of_the_records(odd: Path, ranges: bool) -> None:
    report = scan(odd, options=Options(ranges=ranges))
    assert isinstance(report.tensors, TensorTable)
    terms = plain(report)
    assert report.to_dict() == terms
    for indent in (None, 0, 2, 3):
        text = report.to_json(indent)
        assert text == json.dumps(terms, indent=indent, ensure_ascii=False, allow_nan=False)
        assert "".join(report.json_parts(indent)) == text
    assert len(list(report.json_parts())) > 3


def test_what_was_not_read_has_no_statistics(odd: Path, tmp_path: Path) -> None:
    cut = tmp_path / "m.safetensors"
    cut.write_bytes(odd.read_bytes()[:-20_000])
    for report in (scan(cut), inspect(odd), scan(odd, include=["no such"])):
        text = report.to_json()
        assert text == json.dumps(plain(report), indent=2, ensure_ascii=False, allow_nan=False)


def test_numbers_come_back(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(9, 9)) * 1e-300
    np.savez(tmp_path / "m.npz", w=values)
    report = scan(tmp_path / "m.npz")
    stats = json.loads(report.to_json())["tensors"][0]["stats"]
    assert stats == dict(report.tensors[0].stats or {})
