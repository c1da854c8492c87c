"""`TensorList`: the tensors of a checkpoint in columns, half a million of them in 30 MB."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from .contract import Layout, TensorInfo

__all__ = ["TensorList"]


class _Words:
    """Values that occur many times, each kept once, with a number."""

    def __init__(self) -> None:
        self.codes: dict[Any, int] = {}
        self._values: list[Any] = []

    @property
    def values(self) -> list[Any]:
        """By number."""
        if len(self._values) != len(self.codes):
            self._values = list(self.codes)
        return self._values


class TensorList(Sequence[TensorInfo]):
    """Tensors as columns; a `TensorInfo` is made when it is asked for.

    Names are one run of UTF-8; types, shapes and files are kept once each. It grows until its
    columns are first looked at.
    """

    def __init__(self) -> None:
        self._text = bytearray()
        self._ends = array("q", [0])
        self._kinds, self._shapes, self._files = array("i"), array("i"), array("i")
        self._offsets, self._sizes = array("q"), array("q")
        self._kind, self._shape, self._file = _Words(), _Words(), _Words()
        self._layouts: dict[int, Layout] = {}
        self._storages: dict[int, str] = {}

    @classmethod
    def of(cls, tensors: Iterable[TensorInfo]) -> TensorList:
        """Return `tensors` as such a list: itself where it is one."""
        if isinstance(tensors, cls):
            return tensors
        out = cls()
        for info in tensors:
            out.append(info)
        return out

    def append(self, info: TensorInfo) -> None:
        """Add one tensor."""
        if info.layout is not None:
            self._layouts[len(self)] = info.layout
        if info.storage:
            self._storages[len(self)] = info.storage
        self.add(info.name, info.dtype, info.shape, info.file, info.offset, info.nbytes)

    def add(
        self, name: str, dtype: str, shape: tuple[int, ...], file: str, offset: int, nbytes: int
    ) -> None:
        """Add one tensor that lies in one piece and in memory of its own."""
        self._text += name.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._text))
        kinds, shapes, files = self._kind.codes, self._shape.codes, self._file.codes
        self._kinds.append(kinds.setdefault(dtype, len(kinds)))
        self._shapes.append(shapes.setdefault(shape, len(shapes)))
        self._files.append(files.setdefault(file, len(files)))
        self._offsets.append(offset)
        self._sizes.append(nbytes)

    def take(self, which: npt.NDArray[np.int64]) -> TensorList:
        """Return the tensors at these places, in this order."""
        out = TensorList()
        ends = self._ends
        text = memoryview(self._text)
        for at in which.tolist():
            out._text += text[ends[at] : ends[at + 1]]
            out._ends.append(len(out._text))
        for name in ("_kinds", "_shapes", "_files", "_offsets", "_sizes"):
            column = getattr(self, name)
            kept = np.frombuffer(column, column.typecode)[which] if len(column) else which
            setattr(out, name, array(column.typecode, kept.astype(column.typecode).tobytes()))
        out._kind, out._shape, out._file = self._kind, self._shape, self._file
        for at, index in enumerate(which.tolist()) if self._layouts or self._storages else ():
            if index in self._layouts:
                out._layouts[at] = self._layouts[index]
            if index in self._storages:
                out._storages[at] = self._storages[index]
        return out

    def name(self, index: int) -> str:
        """Return one name."""
        return self._text[self._ends[index] : self._ends[index + 1]].decode(
            "utf-8", "surrogatepass"
        )

    def names(self) -> Iterator[str]:
        """Yield every name."""
        return map(self.name, range(len(self)))

    def repeated(self, hashes: npt.NDArray[np.int64]) -> str | None:
        """Return a name that occurs twice, or None; without keeping half a million of them.

        Parameters
        ----------
        hashes : int64 array [tensors]
            ``hash(name)`` of each.
        """
        ordered = np.sort(hashes)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        seen: set[str] = set()
        for index in np.flatnonzero(np.isin(hashes, twice)).tolist() if len(twice) else ():
            name = self.name(index)
            if name in seen:
                return name
            seen.add(name)
        return None

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Bytes from the start of the file."""
        return _column(self._offsets)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Bytes."""
        return _column(self._sizes)

    @property
    def files(self) -> npt.NDArray[np.int64]:
        """Places of the files in their sorted order."""
        ranks = {name: at for at, name in enumerate(sorted(self._file.values))}
        return self._looked_up(self._files, [ranks[name] for name in self._file.values], np.int64)

    @property
    def shapes(self) -> npt.NDArray[np.int64]:
        """The same number for the same shape."""
        return _column(self._shapes)

    def of_type(self, function: Callable[[str], Any], dtype: Any) -> npt.NDArray[Any]:
        """Return `function` of the type of each tensor, called once for each type."""
        return self._looked_up(self._kinds, [function(n) for n in self._kind.values], dtype)

    def of_shape(self, function: Callable[[tuple[int, ...]], Any], dtype: Any) -> npt.NDArray[Any]:
        """Return `function` of the shape of each tensor, called once for each shape."""
        return self._looked_up(self._shapes, [function(s) for s in self._shape.values], dtype)

    @staticmethod
    def _looked_up(codes: array[int], values: list[Any], dtype: Any) -> npt.NDArray[Any]:
        if not len(codes):
            return np.zeros(0, dtype)
        out: npt.NDArray[Any] = np.array(values, dtype)[_column(codes)]
        return out

    @property
    def packed(self) -> npt.NDArray[np.bool_]:
        """Whether each lies in one piece."""
        out = np.ones(len(self), np.bool_)
        out[list(self._layouts)] = False
        return out

    def kinds(self) -> Counter[str]:
        """Return how many tensors there are of each type."""
        counts = np.bincount(_column(self._kinds), minlength=len(self._kind.values)).tolist()
        return Counter({n: c for n, c in zip(self._kind.values, counts, strict=True) if c})

    @overload
    def __getitem__(self, index: int) -> TensorInfo: ...
    @overload
    def __getitem__(self, index: slice) -> list[TensorInfo]: ...
    def __getitem__(self, index: int | slice) -> TensorInfo | list[TensorInfo]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"tensor {index} of {len(self)}")
        return TensorInfo(
            self.name(at), self._kind.values[self._kinds[at]],
            self._shape.values[self._shapes[at]], self._file.values[self._files[at]],
            self._offsets[at], self._sizes[at], self._layouts.get(at), self._storages.get(at, ""),
        )  # fmt: skip

    def __iter__(self) -> Iterator[TensorInfo]:
        return map(self.__getitem__, range(len(self)))

    def __len__(self) -> int:
        return len(self._sizes)


def _column(values: array[int]) -> npt.NDArray[Any]:
    out = np.frombuffer(values, values.typecode) if len(values) else np.zeros(0, values.typecode)
    out.flags.writeable = False
    return out
