"""A short slice of the campaign in tests/fuzz/mutate_checkpoints.py."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("gguf")
pytest.importorskip("safetensors")
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
@pytest.mark.parametrize("part", [".metadata", "__0_0.distcp"])
def test_mutated_parts_of_distributed_checkpoints(
    campaign: ModuleType, tmp_path: Path, part: str
) -> None:
    pytest.importorskip("torch")
    campaign.distributed_seed(tmp_path / "seed")
    data = (tmp_path / "seed" / part).read_bytes()
    rng = random.Random(7)
    assert campaign.attempt(tmp_path / "seed") == "sound"
    seen = set()
    for _ in range(150):
        (tmp_path / "seed" / part).write_bytes(campaign.mutated(data, rng))
        seen.add(campaign.attempt(tmp_path / "seed"))
    assert seen & {"refused", "incomplete"}


@pytest.mark.slow
@pytest.mark.parametrize("inside", [False, True], ids=["file", "pickle"])
@pytest.mark.parametrize("at", [0, 1])
def test_mutated_parts_of_deepspeed_folders(
    campaign: ModuleType, tmp_path: Path, at: int, *, inside: bool
) -> None:
    pytest.importorskip("torch")
    campaign.deepspeed_seed(tmp_path)
    path = tmp_path / campaign.DEEPSPEED_FILES[at]
    whole = path.read_bytes()
    data = campaign.pickle_of(whole) if inside else whole
    rng = random.Random(7)
    assert campaign.attempt(tmp_path) == "sound"
    seen = set()
    for _ in range(150):
        content = campaign.mutated(data, rng)
        path.write_bytes(campaign.with_pickle(whole, content) if inside else content)
        seen.add(campaign.attempt(tmp_path))
    assert seen & {"refused", "incomplete"}
