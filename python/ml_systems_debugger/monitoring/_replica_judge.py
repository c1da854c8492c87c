"""What the gathered records of all ranks say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import (
    BaseDetector,
    DetectionResult,
    FailureMode,
    Finding,
    Series,
    SeriesKey,
    SeriesKind,
    SeriesTable,
    Severity,
    SignalSet,
    TableKeys,
)
from ._judges import Judges
from ._replica_record import BLOCKS, SCALARS, Digests, Located, Records
from ._replica_screen import Screen

__all__ = ["READERS", "Judge"]

READERS = ("distributed_desync", "partial_worker_failure", "straggler_effect")
"""The detectors that look at what was gathered."""

_LAYERS = 8  # parted parameters of one mismatch that are looked at
_SETS = 8  # sets of ranks whose gradients are compared
_ODD = 15  # ranks of a large set that are looked at for what stands out, beside one more of others
_CAMPS = 8  # kinds of rows that are looked for one by one
_BEFORE = "before reduction"


class Judge:
    """Hands what was gathered to the detectors of replicas, as series of theirs.

    Parameters
    ----------
    detectors : sequence of BaseDetector
        Those named in `READERS` are used.
    context : mapping
    strict : bool
    ranks : sequence of int
        The names of the replicas.
    names : sequence of str
        Of the parameters.
    kinds : mapping of int to int
        Which of the two sets each compared parameter belongs to.
    """

    def __init__(
        self, detectors: Sequence[BaseDetector], context: Mapping[str, Any], strict: bool,
        ranks: Sequence[int], names: Sequence[str], kinds: Mapping[int, int],
    ) -> None:  # fmt: skip
        self._readers = [one for one in detectors if one.name in READERS]
        self._context, self._strict = context, strict
        self._ranks, self._names, self._kinds = list(ranks), names, kinds
        worker = [one for one in self._readers if one.name == READERS[1]]
        self._all = Judges([one for one in self._readers if one not in worker], context, strict)
        # Times of half precision are equal by rounding: they say of no worker that it is stuck.
        self._dead = Judges(worker, context, strict)
        self._sets: dict[tuple[int, int], Judges] = {}
        self._screen = Screen(len(ranks))
        self._keys: dict[tuple[str, str | None, bytes], TableKeys] = {}
        self._told: dict[str, Finding] = {}
        self._firsts: npt.NDArray[np.intp] | None = None
        self._all_leaders: npt.NDArray[np.intp] = np.empty(0, np.intp)
        self._by_leader: dict[int, npt.NDArray[np.intp]] = {}
        self.exchanges = 0

    def take(
        self, answer: tuple[Records, Located | None], firsts: npt.NDArray[np.intp]
    ) -> list[Finding]:
        """Return what one exchange says that is new.

        Parameters
        ----------
        answer : (structured [ranks], Located or None)
            The records, and where there was a mismatch that was not there before.
        firsts : int [ranks, 2]
            The first rank of each rank's sets.
        """
        records, located = answer
        self.exchanges += 1
        found: list[Finding] = []
        if not (records["step"] == records["step"][0]).all():
            found += self._misaligned(records["step"])
            return self._kept(found)
        if located is not None:
            found += self._calls(located)
            found += self._digests(located, firsts)
        found += self._scalars(records)
        found += self._reduced(records, firsts)
        return self._kept(found)

    def conclusions(self) -> list[DetectionResult]:
        """Return what was found, for the report."""
        modes = dict.fromkeys(one.failure_mode for one in self._told.values())
        return [
            DetectionResult.of_findings(
                mode, "replica_agreement",
                [one for one in self._told.values() if one.failure_mode == mode],
                judged=("param_digest",),
            )
            for mode in modes
        ]  # fmt: skip

    @property
    def failed(self) -> dict[str, str]:
        """What did not run, by the detector's name."""
        return {**self._all.failed, **self._dead.failed}

    def _kept(self, found: list[Finding]) -> list[Finding]:
        for one in found:
            if len(self._told) < 256 or one.finding_id in self._told:
                self._told[one.finding_id] = one
        return found

    def _table(
        self, name: str, layer: str | None, chosen: npt.NDArray[np.intp],
        steps: npt.NDArray[np.int64], values: npt.NDArray[Any],
    ) -> SeriesTable:  # fmt: skip
        place = (name, layer, chosen.tobytes())
        keys = self._keys.get(place)
        if keys is None:
            if len(self._keys) >= 64:
                self._keys.clear()
            keys = self._keys[place] = TableKeys(
                SeriesKey(name, None, layer, self._ranks[at]) for at in chosen.tolist()
            )
        return SeriesTable.unchecked(keys, steps, np.ascontiguousarray(values, np.float64))

    def _scalars(self, records: Records) -> list[Finding]:
        step, has = int(records["step"][0]), int(np.bitwise_and.reduce(records["has"]))
        given = [name for bit, name in enumerate(SCALARS) if has >> bit & 1]
        ends = _ends(step, int(records["steps"][0]))
        alone = [name for name in given if name in ("loss", "local_norm")]
        rows = np.empty((len(ends) + len(alone), len(records)))
        rows[: len(ends)] = records["times"].T[: len(ends)]
        for row, name in enumerate(alone, len(ends)):
            rows[row] = records[name]
        chosen = self._screen.chosen(rows)
        rows = rows[:, chosen]
        tables, times = [], []
        worked = rows[: len(ends)]
        known = (worked > 0).all(axis=1)
        if known.any():
            times.append(self._table("compute_time", None, chosen, ends[known], worked[known]))
        at = np.array([step], np.int64)
        for name, values in zip(alone, rows[len(ends) :, None], strict=True):
            quantity, layer = ("loss", None) if name == "loss" else ("grad_norm", _BEFORE)
            tables.append(self._table(quantity, layer, chosen, at.copy(), values))
        found = self._all.update(SignalSet.of_tables(times + tables)) if times + tables else []
        if tables:
            found += self._dead.update(SignalSet.of_tables(tables))
        return [one for one in found if one.replica_id is not None or "sides" in one.evidence]

    def _reduced(self, records: Records, firsts: npt.NDArray[np.intp]) -> list[Finding]:
        """Compare gradients behind their reduction, where they are to be equal."""
        bit = SCALARS.index("grad_norm")
        if not (records["has"] >> bit & 1).all():
            return []
        norms, step = records["grad_norm"].copy(), int(records["step"][0])
        usual = norms[firsts[:, 0]]
        parted = np.abs(norms - usual) > 1e-3 * np.abs(usual)
        leaders = self._leaders(firsts)
        if len(leaders) > _SETS:
            leaders = np.unique(firsts[parted, 0])[:_SETS]
        found: list[Finding] = []
        for first in leaders.tolist():
            members = self._members(firsts, first)
            if len(members) > 64:
                odd = members[parted[members]][:_ODD]
                members = np.union1d(members[: _ODD + 1], odd)
            if len(members) < 2:
                continue
            table = self._table(
                "grad_norm", None, members, np.array([step], np.int64), norms[None, members]
            )
            found += self._of_set(0, first).update(SignalSet.of_tables([table]))
        return found

    def _leaders(self, firsts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Return the first rank of every set: the same from exchange to exchange."""
        if self._firsts is not firsts:
            self._firsts, self._all_leaders = firsts, np.unique(firsts[:, 0])
            self._by_leader = {}
        return self._all_leaders

    def _members(self, firsts: npt.NDArray[np.intp], first: int) -> npt.NDArray[np.intp]:
        found = self._by_leader.get(first)
        if found is None:
            if len(self._by_leader) >= 4 * _SETS:
                self._by_leader.clear()
            found = self._by_leader[first] = np.flatnonzero(firsts[:, 0] == first)
        return found

    def _of_set(self, kind: int, first: int) -> Judges:
        place = (kind, first)
        if place not in self._sets:
            if len(self._sets) >= 4 * _SETS:
                self._sets.pop(next(iter(self._sets)))
            desync = [one for one in self._readers if one.name == READERS[0]]
            self._sets[place] = Judges(desync, self._context, self._strict)
        return self._sets[place]

    def _digests(self, located: Located, firsts: npt.NDArray[np.intp]) -> list[Finding]:
        found: list[Finding] = []
        for kind in (0, 1):
            places = np.array([at for at, of in self._kinds.items() if of == kind], np.intp)
            if not len(places):
                continue
            held = located.digests[:, places]
            differs = held != held[firsts[:, kind]]
            for first in np.unique(firsts[differs.any(axis=1), kind]).tolist()[:_SETS]:
                members = np.flatnonzero(firsts[:, kind] == first)
                found += self._of_one_set(kind, first, members, places, held[members], located)
        return found

    def _of_one_set(
        self, kind: int, first: int, members: npt.NDArray[np.intp], places: npt.NDArray[np.intp],
        held: Digests, located: Located,
    ) -> list[Finding]:  # fmt: skip
        """Judge the digests [members, parameters] of ranks that are to hold the same."""
        parted = (held != held[0]).any(axis=0)
        columns = np.flatnonzero(parted)[:_LAYERS]
        columns = np.concatenate([columns, np.flatnonzero(~parted)[:_LAYERS]])
        rows = _witnesses(held[:, parted])
        series = []
        for column in columns.tolist():
            for row in rows.tolist():
                values, steps = [held[row, column]], [located.step]
                if not located.first:  # one step before they agreed, on whatever it was
                    values, steps = [np.uint64(0), *values], [located.step - 1, *steps]
                key = SeriesKey(
                    "param_digest", None, self._names[places[column]],
                    self._ranks[members[row]], kind=SeriesKind.DIGEST,
                )  # fmt: skip
                series.append(Series(key, np.array(steps), np.array(values, np.uint64)))
        told = self._of_set(kind, first).update(SignalSet.of_tables([], series))
        order = {self._names[place]: at for at, place in enumerate(places.tolist())}
        leading: dict[Any, Finding] = {}
        for one in sorted(told, key=lambda f: order.get(f.layer or "", 0)):
            leading.setdefault(one.replica_id, one)
        return [
            self._leading(one, members, held, len(places)) for one in leading.values()
        ]  # fmt: skip

    def _leading(
        self, one: Finding, members: npt.NDArray[np.intp], held: Digests, of: int
    ) -> Finding:
        """Say of the first parameter that parted how many parted with it."""
        count = int((held != held[0]).any(axis=0).sum())
        if one.replica_id is not None:
            row = [self._ranks[at] for at in members.tolist()].index(int(one.replica_id))
            peers = np.flatnonzero(np.arange(len(held)) != row)
            usual = held[peers[np.argmax(_votes(held[peers]))]]
            count = int((held[row] != usual).sum())
        more = {"parameters_parted": count, "layers": of, "alone": count == 1}
        message = f"{one.message} Of {of} parameters {count} differ; this is the first."
        if count == 1:
            message = f"{one.message} Of {of} parameters it alone differs."
        return replace(one, message=message, evidence={**one.evidence, **more})

    def _calls(self, located: Located) -> list[Finding]:
        """Tell of ranks that made another number of collective calls than the others."""
        odd = located.odd_calls
        wrong = np.flatnonzero(odd)
        if not len(wrong):
            return []
        known = 2 * len(wrong) < len(odd)
        found = []
        for at in wrong.tolist()[:_SETS] if known else wrong.tolist()[:1]:
            rank, missed = self._ranks[at], -int(odd[at])
            who = f"replica {rank}" if known else "one of two halves of the replicas"
            less = "fewer" if missed > 0 else "more"
            message = (
                f"From step {located.step} on {who} made {abs(missed)} collective call"
                f"{'s' * (abs(missed) > 1)} {less} than the others: it left one out, or "
                "made one that the others did not."
            )
            evidence = {
                "series": "collective_seq", "quantity": "collective_seq", "replicas": len(odd),
                "missed_calls": missed, "culprit_known": known, "agreed_before": True,
                "goes_on": True, "deviation": float(abs(missed)),
            }  # fmt: skip
            found.append(Finding(
                FailureMode.GRADIENT_DESYNC, Severity.HIGH, 0.95, located.step, None, None,
                rank if known else None, message, evidence,
                f"replica_agreement:calls:{rank if known else '?'}:{located.step}",
            ))  # fmt: skip
        return found

    def _misaligned(self, steps: npt.NDArray[np.int64]) -> list[Finding]:
        """Tell once of replicas that are at another step than the others."""
        if any("misaligned" in identity for identity in self._told):
            return []
        values, votes = np.unique(steps, return_counts=True)
        usual = int(values[np.argmax(votes)])
        odd = np.flatnonzero(steps != usual)
        known = 2 * len(odd) < len(steps)
        names = [self._ranks[at] for at in odd.tolist()[:8]]
        message = (
            f"Replicas {names} tell of step {int(steps[odd[0]])} where the others tell of {usual}: "
            "they left out a call of monitor.step, or began elsewhere. They are not compared."
        )
        evidence = {
            "series": "step", "quantity": "step", "replicas": len(steps), "culprit_known": known,
            "agreed_before": self.exchanges > 1, "goes_on": True,
        }  # fmt: skip
        return [Finding(
            FailureMode.GRADIENT_DESYNC, Severity.MEDIUM, 0.8, usual, None, None,
            names[0] if known and len(odd) == 1 else None, message, evidence,
            f"replica_agreement:misaligned:{usual}",
        )]  # fmt: skip


def _ends(step: int, steps: int) -> npt.NDArray[np.int64]:
    """Return the last step of each block of an interval that ends at `step`."""
    size = max(1, -(-steps // BLOCKS))
    ends = np.arange(step - steps + size, step + 1, size, dtype=np.int64)
    return ends if len(ends) and ends[-1] == step else np.append(ends, step)


def _votes(rows: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return how many rows are the same as each of them."""
    votes = np.zeros(len(rows), np.intp)
    left = np.arange(len(rows))
    for _ in range(_CAMPS):  # mostly there are two kinds: no need to sort them all
        if not len(left):
            return votes
        same = (rows[left] == rows[left[0]]).all(axis=1)
        votes[left[same]] = int(same.sum())
        left = left[~same]
    _, back, counts = np.unique(rows[left], axis=0, return_inverse=True, return_counts=True)
    votes[left] = counts[back.reshape(-1)]
    return votes


def _witnesses(held: Digests) -> npt.NDArray[np.intp]:
    """Return the rows to look at: all of at most 64; of more, the odd ones and as many others."""
    if len(held) <= 64:
        return np.arange(len(held))
    votes = _votes(held)
    odd = np.flatnonzero(2 * votes <= len(held))
    most = np.flatnonzero(2 * votes > len(held))
    if not len(most):
        return np.arange(64)
    return np.sort(np.concatenate([odd[:31], most[:33]]))
