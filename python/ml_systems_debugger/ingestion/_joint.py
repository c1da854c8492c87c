"""What the pieces of one source have in common: where each of its series stands."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core import SeriesKey, resolve
from ..core.names import QuantityName
from ._groups import Group
from ._restarts import Order, Ordered, Part, ordered, stride_of

__all__ = ["Joint", "Piece"]

Steps = npt.NDArray[np.int64]

_LEAST = np.iinfo(np.int64).min


class Piece(NamedTuple):
    """The steps of one series within a piece, and the rows that they stand in (None for all)."""

    key: SeriesKey
    rows: Steps | None
    steps: Steps

    @property
    def owner(self) -> Hashable:
        """Series of one owner restart together."""
        return self.key.replica_id, self.key.run


class Joint:
    """Carries steps, names and restarts over from one piece of a source to the next.

    What a whole table decides at once is decided here as the pieces come: a
    name keeps the meaning that it had when it was first seen, and a step that
    goes back is a restart, or is counted on where the epoch went up.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.step: int | None = None
        """The last one that a row stated."""
        self.mapped: set[str] = set()
        """The columns of the mapping that were there."""
        self.segments: dict[Hashable, int] = {}
        self.front: dict[Hashable, int] = {}
        """By owner, its greatest step since its last restart."""
        self._ends: dict[SeriesKey, tuple[int, int, int]] = {}
        """By series its segment and its last step there, as written and as counted."""
        self._shifts: dict[Hashable, int] = {}
        self._epoch = np.nan
        self._stride: int | None = None
        self._counts: dict[tuple[Any, ...], int] = {}
        self._names: dict[str, QuantityName] = {}

    def resolved(self, names: Iterable[str]) -> dict[str, QuantityName]:
        """Take names apart; those seen in an earlier piece keep their meaning."""
        given = list(names)
        new = [name for name in given if name not in self._names]
        if new:
            found = resolve([*self._names, *new])
            taken = {parts[:3] for parts in self._names.values()}
            for name in new:
                parts = found[name]
                if parts[:3] in taken:  # by an alias that came in an earlier piece
                    parts = QuantityName(name)
                while parts[:3] in taken:
                    parts = QuantityName(f"{parts.name} (as written)")
                taken.add(parts[:3])
                self._names[name] = parts
        return {name: self._names[name] for name in given}

    def count_on(self, groups: Iterable[Group]) -> None:
        """Give groups without steps the numbers behind those of earlier pieces."""
        for group in groups:
            who = (group.metric, group.replica_id, group.layer, group.run, group.split)
            before = self._counts.get(who, 0)
            group.steps = group.steps + before
            self._counts[who] = before + len(group.steps)

    def ordered(self, pieces: Sequence[Piece], epochs: npt.NDArray[np.float64] | None) -> Ordered:
        """Put the series of a piece in order, as `ordered` does, behind what came before.

        Every series is given its last step of the earlier pieces as a row before
        the first: a step that goes back in between is then seen like any other.
        """
        parts = [self._extended(piece) for piece in pieces]
        if epochs is not None:
            epochs = np.concatenate([[self._epoch], epochs])
            known = epochs[np.isfinite(epochs)]
            self._epoch = float(known[-1]) if len(known) else np.nan
            stride = stride_of(steps for *_, steps in parts)
            self._stride = min(filter(None, (stride, self._stride)), default=None)
        found = ordered(parts, epochs, self._stride)
        orders = [self._placed(p, o) for p, o in zip(pieces, found.parts, strict=True)]
        self._move_on(pieces, orders)
        return Ordered(orders, found.notes)

    def _extended(self, piece: Piece) -> Part:
        rows = np.arange(len(piece.steps)) if piece.rows is None else piece.rows
        end = self._end(piece)
        if end is None:
            return piece.owner, rows + 1, piece.steps
        return (
            piece.owner,
            np.concatenate([[0], rows + 1]),
            np.concatenate([[end], piece.steps]),
        )

    def _placed(self, piece: Piece, order: Order) -> Order:
        """Return the order of the piece alone, with the number of its segments in the source."""
        end = self._end(piece)
        lead = 0 if end is None else 1
        before = self.segments.get(piece.owner, 0)
        shift = self._shifts.get(piece.owner, 0)
        steps = order.steps[lead:]
        parts: list[tuple[int, slice]] = []
        if order.permutation is not None:
            order = Order(piece.steps, np.argsort(piece.steps, kind="stable"))
            steps = piece.steps[order.permutation] + shift
            parts = [(before, slice(None))]
        else:
            for number, part in order.segments:
                start, stop, _ = part.indices(len(order.steps))
                start, stop = max(start - lead, 0), stop - lead
                if start < stop:
                    if number == 0 and shift:
                        steps = steps.copy()
                        steps[start:stop] += shift
                    parts.append((before + number, slice(start, stop)))
        if parts[0][0] == before and end is not None and steps[0] < self._ends[piece.key][2]:
            # However it came about, what was given is not gone behind: it is a restart.
            parts = [(number + 1, part) for number, part in parts]
        return Order(steps, order.permutation, parts)

    def _move_on(self, pieces: Sequence[Piece], orders: Sequence[Order]) -> None:
        for piece, order in zip(pieces, orders, strict=True):
            owner, number = piece.owner, order.segments[-1][0]
            if owner not in self.segments or number > self.segments[owner]:
                self.segments[owner] = number
                self._shifts[owner] = 0
                self.front.pop(owner, None)
        for piece, order in zip(pieces, orders, strict=True):
            owner, number = piece.owner, order.segments[-1][0]
            if number < self.segments[owner]:
                continue
            self.front[owner] = max(self.front.get(owner, _LEAST), int(order.steps[-1]))
            counted = int(order.steps[-1])
            if order.permutation is None:
                written = int(piece.steps[-1])
                self._shifts[owner] = max(self._shifts[owner], counted - written)
            else:
                written = int(piece.steps.max())
            self._ends[piece.key] = number, written, counted

    def _end(self, piece: Piece) -> int | None:
        """Return the last step of a series, None where it begins, or begins anew."""
        number, step, _ = self._ends.get(piece.key, (-1, 0, 0))
        return step if number == self.segments.get(piece.owner) else None
