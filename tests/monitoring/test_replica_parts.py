"""Records, sets of ranks, the judge and the screen, without processes."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import Configuration, MLSystemsDebugger, Monitor, ReplicaAgreement
from ml_systems_debugger.core import ConfigurationError, MissingDependencyError
from ml_systems_debugger.kernels.reference import sequences
from ml_systems_debugger.monitoring._replica_channel import camps, firsts_of, odd_calls
from ml_systems_debugger.monitoring._replica_judge import Judge, _votes
from ml_systems_debugger.monitoring._replica_process import identity, state_of
from ml_systems_debugger.monitoring._replica_record import (
    RECORD,
    SCALARS,
    History,
    Located,
    record_of,
)
from ml_systems_debugger.monitoring._replica_screen import Screen
from ml_systems_debugger.monitoring._replica_sets import Compared

NAMES = ("embedding", "first", "second", "head")


def history(*roots: int) -> History:
    held = [np.array([one, 0], np.uint64) for one in roots]
    return History(list(range(len(roots))), list(held), held, [3 * at for at in range(len(roots))])


def judge(ranks: int, sets: int = 1) -> tuple[Judge, Any]:
    detectors = MLSystemsDebugger(None, config=Configuration()).detectors
    layout = np.zeros((ranks, 4), np.uint64)
    layout[:, 0] = np.arange(ranks) % sets + 1
    made = Judge(detectors, {}, True, list(range(ranks)), NAMES, dict.fromkeys(range(4), 0))
    return made, firsts_of(layout)


def exchange(ranks: int, step: int, rng: np.random.Generator, every: int = 8) -> Any:
    made = np.zeros(ranks, RECORD)
    made["step"], made["steps"], made["has"] = step, every, (1 << len(SCALARS)) - 1
    made["times"] = rng.normal(0.5, 0.01, (ranks, 8))
    for name in ("loss", "local_norm"):
        made[name] = rng.normal(1.0, 0.05, ranks)
    made["grad_norm"], made["step_time"] = rng.normal(1.0, 0.05), 0.6
    return made


def located(step: int, digests: list[list[int]], *, first: bool = False) -> Located:
    return Located(step, first, np.zeros(len(digests), np.int64), np.array(digests, np.uint64))


def test_a_record_has_64_bytes() -> None:
    made = record_of(history(1, 2), [0.5, 0.25], {"loss": 2.0}, 2)
    assert made.nbytes == 64
    assert made["step"][0] == 1
    assert made["times"][0, :2].tolist() == [0.5, 0.25]
    assert np.isnan(made["times"][0, 2:]).all()
    assert made["has"][0] == 1 << SCALARS.index("loss")


def test_replicas_that_part_and_meet_again_have_parted() -> None:
    one, other = (record_of(history(*held), [], {}, 3) for held in ((1, 2, 3), (1, 9, 3)))
    assert one["roots"][0, 0] != other["roots"][0, 0]


def test_camps_are_within_the_sets() -> None:
    layout = np.zeros((4, 4), np.uint64)
    layout[:, 0] = 7, 8, 7, 8
    firsts = firsts_of(layout)
    assert firsts[:, 0].tolist() == [0, 1, 0, 1]
    roots = np.array([[5, 0], [6, 0], [5, 0], [6, 0]], np.uint64)
    assert camps(roots, firsts)[:, 0].tolist() == [0, 1, 0, 1]
    roots[3, 0] = 9
    assert camps(roots, firsts)[:, 0].tolist() == [0, 1, 0, 3]


def test_calls_are_counted_beyond_32_bits() -> None:
    first = np.array([2**32 - 2, 5, 5])
    assert odd_calls(np.array([1, 8, 7]), first).tolist() == [0, 0, -1]


def test_the_rank_of_the_minority_and_its_first_parameter_are_named() -> None:
    made, firsts = judge(4)
    rng = np.random.default_rng(0)
    assert made.take((exchange(4, 7, rng), None), firsts) == []
    digests = [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 9, 9], [1, 2, 3, 4]]
    (found,) = made.take((exchange(4, 15, rng), located(12, digests)), firsts)
    assert (found.replica_id, found.layer, found.onset_step) == (2, "second", 12)
    assert found.evidence["parameters_parted"] == 2
    assert found.evidence["agreed_before"] is True
    assert not found.evidence["alone"]


def test_a_second_rank_that_parts_is_told_too() -> None:
    made, firsts = judge(5)
    rng = np.random.default_rng(0)
    digests = [[1, 2, 3, 4] for _ in range(5)]
    digests[2] = [1, 2, 9, 4]
    (one,) = made.take((exchange(5, 7, rng), located(5, digests)), firsts)
    digests[4] = [8, 2, 3, 4]
    (two,) = made.take((exchange(5, 15, rng), located(12, digests)), firsts)
    assert (one.replica_id, one.evidence["alone"]) == (2, True)
    assert (two.replica_id, two.layer, two.onset_step) == (4, "embedding", 12)


def test_of_two_nobody_is_named() -> None:
    made, firsts = judge(4, sets=2)
    digests = [[1, 2, 3, 4], [5, 6, 7, 8], [1, 2, 3, 9], [5, 6, 7, 8]]
    taken = (exchange(4, 7, np.random.default_rng(0)), located(0, digests, first=True))
    (found,) = made.take(taken, firsts)
    assert found.replica_id is None
    assert found.layer == "head"
    assert {frozenset(side) for side in found.evidence["sides"]} == {
        frozenset({0}), frozenset({2}),
    }  # fmt: skip
    assert found.evidence["agreed_before"] is False


def test_a_rank_that_left_a_call_out_is_named() -> None:
    made, firsts = judge(4)
    odd = np.array([0, 0, -1, 0])
    there = Located(9, False, odd, np.ones((4, 4), np.uint64))
    (found,) = made.take((exchange(4, 15, np.random.default_rng(0)), there), firsts)
    assert (found.replica_id, found.onset_step) == (2, 9)
    assert found.evidence["missed_calls"] == 1


def test_ranks_at_other_steps_are_told_once_and_not_compared() -> None:
    made, firsts = judge(4)
    rng = np.random.default_rng(0)
    found = []
    for step in (7, 15):
        records = exchange(4, step, rng)
        records["step"][1] -= 1
        found += made.take((records, None), firsts)
    (one,) = found
    assert one.replica_id == 1
    assert one.severity.value == "medium"


@pytest.mark.parametrize("ranks", [4, 400])
def test_a_slow_rank_is_told_by_one_exchange(ranks: int) -> None:
    made, firsts = judge(ranks)
    rng = np.random.default_rng(0)
    told = []
    for at in range(14):
        records = exchange(ranks, 8 * at + 7, rng)
        if at >= 12:
            records["times"][3] *= 2
        told.append(made.take((records, None), firsts))
    assert told[:12] == [[]] * 12
    (found,) = told[12]
    assert found.failure_mode.value == "straggler_effect"
    assert (found.replica_id, found.onset_step) == (3, 96)


@pytest.mark.parametrize("ranks", [2, 4, 300])
def test_healthy_exchanges_raise_no_alarm(ranks: int) -> None:
    made, firsts = judge(ranks)
    rng = np.random.default_rng(1)
    for at in range(300):
        assert made.take((exchange(ranks, 8 * at + 7, rng), None), firsts) == []
    assert made.conclusions() == []


def test_the_screen_keeps_peers_and_who_stood_out() -> None:
    rng = np.random.default_rng(0)
    screen = Screen(5000)
    values = rng.normal(1.0, 0.02, (6, 5000))
    assert len(screen.chosen(values)) == 16
    values[2, 1234] = 3.0
    values[4, 77] = np.nan
    assert set(screen.outside(values)) == {77, 1234}
    assert {77, 1234} <= set(screen.chosen(values))
    values[2, 1234] = 1.0
    assert 1234 in screen.chosen(values)


def outside_by_hand(values: np.ndarray) -> set[int]:
    """Return who stands out, one scalar after the other, by the slow twin."""
    found = set()
    for row in values.tolist():
        spread = sequences.replica_spread(row)
        if not spread["finite"]:
            continue
        reach = max(8 * spread["mad"], 0.3 * abs(spread["median"]))
        for at, value in enumerate(row):
            if not abs(value - spread["median"]) <= reach:
                found.add(at)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_who_stands_out_is_who_does_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(1.0, 0.05, (7, 700)).round(2)
    values[1] = 3.0  # all agree but one
    values[1, 5] = 3.5
    values[2] *= -1
    values[3] = np.nan
    values[4] = 0.0
    values[5, 9], values[5, 10] = np.inf, np.nan
    chance = rng.integers(0, 700, 12)
    values[6, chance] *= rng.choice([1.2, 1.29, 1.4, 3.0, -1.0], 12)
    found = Screen(700).outside(values).tolist()
    assert set(found) == outside_by_hand(values)
    assert len(found) == len(set(found))
    assert set(found[:2]) == {9, 10}, "what is not finite comes first"


def test_many_that_stand_out_are_never_the_majority() -> None:
    rng = np.random.default_rng(0)
    screen = Screen(4000)
    values = rng.normal(1.0, 0.02, (2, 4000))
    values[0, 100:250] = 2.0  # none of the peers
    values[0, 200] = 9.0
    chosen = screen.chosen(values)
    assert 200 in chosen
    assert len(chosen) == 31
    assert (values[0, chosen] > 1.5).sum() == 15


@pytest.mark.parametrize("seed", range(20))
def test_camps_are_those_of_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ranks = int(rng.integers(1, 40))
    layout = np.zeros((ranks, 4), np.uint64)
    layout[:, :2] = rng.integers(0, 4, (ranks, 2))
    firsts = firsts_of(layout)
    roots = rng.integers(0, 4, (ranks, 2)).astype(np.uint64)
    for kind in (0, 1):
        pairs = list(zip(firsts[:, kind].tolist(), roots[:, kind].tolist(), strict=True))
        twin = [pair[0] if roots[pair[0], kind] == pair[1] else pairs.index(pair) for pair in pairs]
        assert camps(roots, firsts)[:, kind].tolist() == twin


@pytest.mark.parametrize("kinds", [1, 2, 5, 30])
def test_votes_are_counted_for_every_row(kinds: int) -> None:
    rng = np.random.default_rng(kinds)
    rows = rng.integers(0, 9, (kinds, 3)).astype(np.uint64)[rng.integers(0, kinds, 60)]
    held = [tuple(row) for row in rows.tolist()]
    assert _votes(rows).tolist() == [held.count(row) for row in held]


def fake_model(*shapes: Any) -> Any:
    """Return a model of parameters with placements over a mesh of 2 x 2."""
    return SimpleNamespace(
        named_parameters=lambda: [(f"p{at}", one) for at, one in enumerate(shapes)],
        parameters=lambda: list(shapes),
    )


def sharded(*replicate: bool, partial: bool = False) -> Any:
    class Mesh:
        mesh = np.arange(4).reshape(2, 2)

        def get_coordinate(self) -> tuple[int, int]:
            return 1, 0  # rank 2

    placements = [
        SimpleNamespace(is_replicate=lambda it=it: it, is_partial=lambda: partial)
        for it in replicate
    ]
    return SimpleNamespace(device_mesh=Mesh(), placements=placements, shape=(4, 4))


def test_only_replicated_dimensions_are_compared() -> None:
    plain = SimpleNamespace(shape=(2,))
    model = fake_model(
        sharded(True, False), sharded(False, False), sharded(True, True),
        sharded(True, False, partial=True), plain,
    )  # fmt: skip
    made = Compared(model, 2, [0, 1, 2, 3])
    assert made.sets == [(0, 1, 2, 3), (0, 2)]
    assert made.kind_of() == {2: 0, 4: 0, 0: 1}


def test_a_process_that_is_gone_is_known() -> None:
    own = identity()
    if not own:
        pytest.skip("this system does not tell of its processes")
    assert state_of(own, own) == ""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        child = process.pid
    boot, space, _, started = own.split("|")
    assert state_of(f"{boot}|{space}|{child}|{started}", own) == "is gone"
    assert state_of(f"other|{space}|{child}|{started}", own) == ""


def test_replicas_need_a_job() -> None:
    with pytest.raises((ConfigurationError, MissingDependencyError)):  # without torch: that
        Monitor(replicas=True)
    with pytest.raises(ConfigurationError):
        Monitor(replicas="yes")
    with pytest.raises(ConfigurationError):
        ReplicaAgreement(every=0)
