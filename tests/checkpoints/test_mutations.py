"""A short slice of the campaign in tests/fuzz/mutate_checkpoints.py."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ml_systems_debugger.checkpoints import scan
from ml_systems_debugger.core import MLSystemsDebuggerError

pytest.importorskip("gguf")
safetensors = pytest.importorskip("safetensors")
FORMATS = ("safetensors", "torch", "npz", "npz_deflated", "npy", "gguf")


@pytest.fixture(scope="module")
def campaign() -> ModuleType:
    path = Path(__file__).parents[1] / "fuzz" / "mutate_checkpoints.py"
    spec = importlib.util.spec_from_file_location("mutate_checkpoints", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_mutated_files_are_refused_or_scanned(
    campaign: ModuleType, tmp_path: Path, name: str
) -> None:
    data = campaign.seeds()[name]
    rng = random.Random(7)
    path = tmp_path / "seed"
    path.write_bytes(data)
    assert campaign.attempt(path) == "sound"
    seen = set()
    for _ in range(150):
        path.write_bytes(campaign.mutated(data, rng))
        seen.add(campaign.attempt(path))
    assert "refused" in seen


@pytest.mark.slow
def test_what_is_sound_here_is_read_by_the_reference_too(
    campaign: ModuleType, tmp_path: Path
) -> None:
    data = campaign.seeds()["safetensors"]
    rng = random.Random(11)
    path = tmp_path / "seed.safetensors"
    sound = 0
    for _ in range(600):
        path.write_bytes(campaign.mutated(data, rng))
        try:
            report = scan(path, workers=1)
        except MLSystemsDebuggerError:
            continue
        if report.status.value == "incomplete":
            continue
        if any(f.code in ("trailing_bytes", "strange_header") for f in report.findings):
            continue
        sound += 1
        with safetensors.safe_open(path, "pt") as reference:
            assert {t.name for t in report.tensors} == set(reference.keys())
    assert sound > 0
