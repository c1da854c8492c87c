"""A short slice of the campaign in tests/fuzz/fuzz_formats.py: damaged run data of every kind."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz"
KINDS = ("any", "csv", "events", "jsonl", "logs", "mlflow_db", "mlflow_store", "trace",
         "trainer_state", "wandb")  # fmt: skip


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    sys.path.insert(0, str(FUZZ))  # it imports its sibling
    spec = importlib.util.spec_from_file_location("fuzz_formats", FUZZ / "fuzz_formats.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_run_data_is_read_or_refused(fuzz: ModuleType, tmp_path: Path, kind: str) -> None:
    runs = fuzz.Runs(tmp_path)
    campaign = fuzz.Campaign(runs, kind)
    rng = random.Random(3)
    for seed in runs.seeds[kind]:
        campaign.attempt(b"\0" + seed)
        for number in range(60):
            content = fuzz.mutate_checkpoints.mutated(seed, rng)
            if kind in fuzz.MEND and number % 2:
                content = fuzz.MEND[kind](content)
            campaign.attempt(b"\0" + content)


@pytest.mark.usefixtures("fuzz")
def test_the_oracle_sees_damage() -> None:
    runs = importlib.import_module("damaged_runs")  # beside `fuzz`, which made it importable
    whole = runs.event_file([b"\x10\x01", b"\x10\x02"])
    assert not runs.broken_events(whole)
    assert runs.broken_events(whole[:-1])
    assert runs.broken_events(whole[:13] + b"x" + whole[14:])
    assert not runs.broken_events(runs.mended_events(whole[:13] + b"x" + whole[14:]))
