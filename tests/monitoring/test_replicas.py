"""Jobs of four ranks over gloo whose monitors watch each other: real processes, planted faults."""

from __future__ import annotations

import os
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
if not torch.distributed.is_available() or not hasattr(os, "fork"):
    pytest.skip("torch has no distributed jobs here", allow_module_level=True)

from replica_programs import RANKS, Outcome, jobs  # noqa: E402 - needs torch

pytestmark = pytest.mark.xdist_group("replicas")  # four processes at a time are enough

FAULTS = (
    ("skipped", "ddp"), ("flipped", "ddp"), ("seed", "ddp"), ("slow", "ddp"), ("killed", "ddp"),
    ("raised", "ddp"), ("skipped", "fsdp"), ("flipped", "hsdp"),
)  # fmt: skip
_ran: dict[Any, Outcome] = {}


def outcome(fault: str, wrap: str, **options: Any) -> Outcome:
    """Run a job once for all tests that look at it."""
    place = (fault, wrap, *sorted(options.items()))
    if place not in _ran:
        (_ran[place],) = jobs({"fault": fault, "wrap": wrap, **options})
    return _ran[place]


@pytest.mark.parametrize(("fault", "wrap"), FAULTS)
def test_every_rank_names_the_rank_the_parameter_and_the_step(fault: str, wrap: str) -> None:
    seen = outcome(fault, wrap)
    for rank in seen.witnesses:
        right = seen.right(rank)
        assert all(right.values()), (rank, right, seen.first(rank), seen.errors)


@pytest.mark.parametrize("fault", ["skipped", "flipped"])
def test_it_is_told_at_the_next_exchange_at_the_same_step_everywhere(fault: str) -> None:
    seen = outcome(fault, "ddp")
    told = {one["told_at"] for rank in seen.witnesses if (one := seen.first(rank)) is not None}
    assert told == {31}, "the exchange of step 23 is judged at that of step 31"


def test_a_job_that_deadlocks_names_the_rank_that_left_its_reduction_out() -> None:
    """Of 2 x 2 ranks all hang at the same step, each alive: their calls tell."""
    seen = outcome("skipped", "hsdp", timeout=3.0)
    for rank in range(RANKS):
        right = seen.right(rank)
        assert all(right.values()), (rank, right, seen.told.get(rank), seen.errors)
        assert "in another order" in seen.first(rank)["message"]


def test_a_healthy_exchange_is_64_bytes_a_rank_and_no_alarm() -> None:
    seen = outcome("healthy", "ddp", steps=300, every=1)
    for rank in range(RANKS):
        facts = seen.facts[rank]
        assert facts["failed"] == []
        assert facts["answered"] == facts["sent"] == 300
        assert facts["payload"] == {"records": 64 * 300, "mismatches": 0}
        assert [one for one in seen.told[rank] if one["severity"] in ("high", "critical")] == []


def test_a_job_that_hangs_ends_where_the_action_asks_for_it() -> None:
    """The process of rank 2 is stopped: nothing else would end the all-reduce of the others."""
    seen = outcome("stopped", "ddp", action="raise", timeout=3.0)
    for rank in seen.witnesses:
        assert seen.right(rank)["rank"], seen.errors
        assert seen.ended[rank] not in (None, 0), seen.errors
