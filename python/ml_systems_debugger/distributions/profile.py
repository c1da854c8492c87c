"""`Profile`: what a table of features looks like, in a few kilobytes per feature."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import ConfigurationError, SchemaError
from ..core.files import written_whole
from ..kernels import get_num_threads
from ._categories import CategoryFeature
from ._columns import Array
from ._numbers import NumberFeature
from ._rows import RowSampler
from ._vectors import VectorFeature
from .tables import Chunk, read_chunks

__all__ = ["PROFILE_VERSION", "Feature", "Profile"]

PROFILE_VERSION = "1.0"
_KEPT = 16384  # rows sampled: a shift of a tenth of a deviation is then sure to one in 10^11
_MANY_WORDS = 50

Feature = NumberFeature | CategoryFeature | VectorFeature


class Profile:
    """A table's features: exact counts and a sample of rows, folded chunk by chunk.

    Memory does not grow with the rows, and the result does not depend on how
    they are cut, but for the bins, which the first rows of a reference place.

    Parameters
    ----------
    against : Profile, optional
        The reference: its bins are counted, and its kinds of features assumed.
    categorical : collection of str
        Features whose numbers are names of categories.

    Examples
    --------
    >>> profile = Profile.of({"age": [31.0, 45.0, None], "country": ["NL", "BE", "NL"]})
    >>> profile.rows, profile.features["country"].counts["NL"]
    (3, 2)
    """

    def __init__(self, against: Profile | None = None, categorical: Collection[str] = ()) -> None:
        if isinstance(categorical, str):
            raise ConfigurationError(f"categorical is a list of names, got {categorical!r}")
        self.against = against
        self.categorical = frozenset(categorical)
        self.rows = 0
        self.features: dict[str, Feature] = {}
        self._sampler = RowSampler(_KEPT)

    @classmethod
    def of(
        cls, data: Any, *, against: Profile | None = None, categorical: Collection[str] = ()
    ) -> Profile:
        """Return the profile of a whole table; see `read_chunks` for what is taken.

        A path to a saved profile gives that profile, and a `Profile` itself.
        """
        if isinstance(data, Profile):
            return data
        if isinstance(data, (str, os.PathLike)) and _is_profile(Path(data)):
            return cls.load(data)
        found = cls(against, categorical)
        for chunk in read_chunks(data):
            found.add(chunk)
        return found

    def add(self, rows: Chunk | Any) -> None:
        """Take the next rows: anything that `read_chunks` takes.

        Raises
        ------
        SchemaError
            If a column that held numbers now holds words, or the other way
            round, or columns come or go.
        """
        for chunk in read_chunks(rows):
            self._add(chunk)

    def _add(self, chunk: Chunk) -> None:
        if self.features and set(chunk) != set(self.features) and chunk:
            odd = sorted(set(chunk) ^ set(self.features))
            raise SchemaError(f"columns came or went after row {self.rows}: {odd[:5]}")
        count = len(next(iter(chunk.values()), ()))
        stay, new = self._sampler.add(count)
        work = [(name, self._feature(name, values)) for name, values in chunk.items()]

        def fold(job: tuple[str, tuple[Feature, Array]]) -> None:
            name, (feature, values) = job
            try:
                feature.add(values, stay, new)
            except SchemaError as error:
                raise SchemaError(error.reason, column=name) from error

        if count * len(work) < 1 << 18:
            for job in work:
                fold(job)
        else:
            with ThreadPoolExecutor(get_num_threads()) as pool:
                list(pool.map(fold, work))
        self.features |= {name: feature for name, (feature, _) in work}
        self.rows += count

    def _feature(self, name: str, values: Array) -> tuple[Feature, Array]:
        """Return the feature that takes a column, and the column as it takes it."""
        if name in self.categorical and values.dtype.kind == "f" and values.ndim == 1:
            values = _as_words(values)
        known = self.features.get(name)
        other = None if self.against is None else self.against.features.get(name)
        kind = known.kind if known is not None else None
        empty = values.dtype.kind == "f" and values.ndim == 1 and _all_missing(values)
        if values.ndim == 2:
            now = "embedding"
        elif values.dtype.kind == "f" and not empty:
            now = "numeric"
        elif empty:  # missing everywhere: of any kind
            now = kind or (other.kind if other is not None else "numeric")
        else:
            like = kind if kind in ("text", "categorical") else other.kind if other else None
            now = like if like in ("text", "categorical") else _kind_of_words(values)
        if known is None or (kind != now and known.count == known.missing):
            feature = _made(now, other)
            _carry(feature, known)
            known = feature
        elif kind != now:
            raise SchemaError(f"{kind} until row {self.rows}, {now} after", column=name)
        if now == "text":
            values = np.array([np.nan if v is None else len(v) for v in _words(values)])
        elif now == "categorical":
            values = _words(values)
        elif now == "embedding" and values.ndim == 1:
            width = known.width if isinstance(known, VectorFeature) else 0
            values = np.full((len(values), width or 0), np.nan, np.float32)
        return known, values

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON terms."""
        return {
            "profile_version": PROFILE_VERSION,
            "rows": self.rows,
            "features": {name: one.to_dict() for name, one in self.features.items()},
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the profile as JSON, aside first, so that an old one is whole or replaced."""
        with written_whole(path) as aside:
            aside.write_text(json.dumps(self.to_dict(), allow_nan=False), encoding="utf-8")

    @classmethod
    def from_dict(cls, terms: Any, source: str | None = None) -> Profile:
        """Return the profile that `to_dict` wrote.

        Raises
        ------
        SchemaError
            If it is none.
        """
        if not isinstance(terms, dict) or "profile_version" not in terms:
            raise SchemaError("not a profile: no 'profile_version'", source=source)
        version = str(terms["profile_version"])
        if version.partition(".")[0] != PROFILE_VERSION.partition(".")[0]:
            raise SchemaError(
                f"a profile of version {version}; this release reads {PROFILE_VERSION}",
                source=source,
            )
        found = cls()
        try:
            found.rows = int(terms["rows"])
            items = list(terms["features"].items())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SchemaError(f"not a profile: {error!r}", source=source) from error
        for name, one in items:
            kind = one.get("type") if isinstance(one, dict) else None
            made = _KINDS.get(str(kind))
            if made is None:
                raise SchemaError("a feature of no known type", source=source, column=name,
                                  value=kind)  # fmt: skip
            found.features[name] = made.from_dict(one, name)
        return found

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Profile:
        """Read a saved profile; errors as for `from_dict`."""
        try:
            terms = json.loads(Path(path).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise SchemaError(f"not JSON: {error}", source=str(path)) from error
        return cls.from_dict(terms, str(path))


_KINDS: dict[str, type[NumberFeature] | type[CategoryFeature] | type[VectorFeature]] = {
    "numeric": NumberFeature,
    "text": NumberFeature,
    "categorical": CategoryFeature,
    "embedding": VectorFeature,
}


def _made(kind: str, other: Feature | None) -> Feature:
    if kind in ("numeric", "text"):
        cuts: npt.NDArray[np.float64] | None = None
        if isinstance(other, NumberFeature) and other.kind == kind:
            cuts = other.cuts
        return NumberFeature(kind, cuts)
    return CategoryFeature() if kind == "categorical" else VectorFeature()


def _carry(feature: Feature, before: Feature | None) -> None:
    """Take over the missing rows of a column whose kind could not be known so far."""
    if before is None:
        return
    feature.count = feature.missing = before.count
    if isinstance(feature, NumberFeature):
        kept = before.sample if isinstance(before, NumberFeature) else np.empty(0)
        feature.sample = np.full(len(kept), np.nan)


def _all_missing(values: Array) -> bool:
    # One look at the first values spares a pass over nearly every column.
    return bool(np.isnan(values[:64]).all()) and bool(np.isnan(values).all())


def _kind_of_words(values: Array) -> str:
    """Return ``text`` where most words differ, else ``categorical``."""
    words: Sequence[str] = [v for v in values[: 1 << 16].tolist() if v is not None]
    distinct = len(set(words))
    return "text" if distinct > _MANY_WORDS and distinct > len(words) / 2 else "categorical"


def _words(values: Array) -> Array:
    return np.full(len(values), None, object) if values.dtype.kind == "f" else values


def _as_words(values: Array) -> Array:
    found = np.empty(len(values), object)
    found[:] = [None if v != v else f"{v:g}" for v in values.tolist()]
    return found


def _is_profile(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip().startswith(b'{"profile_version"')
