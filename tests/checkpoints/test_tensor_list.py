"""Tensors in columns: the same as a list of them."""

from __future__ import annotations

import numpy as np
import pytest

from ml_systems_debugger.checkpoints import TensorInfo
from ml_systems_debugger.checkpoints._strided import Strided
from ml_systems_debugger.checkpoints._tensor_list import TensorList

INFOS = [
    TensorInfo("a", "float32", (2, 3), "x", 8, 24),
    TensorInfo("ü\ud800\x00", "float32", (), "y", 2**61, 4, None, "y:0"),
    TensorInfo("", "int8", (2, 3), "x", 32, 6, Strided("x", 32, (2, 3), (1, 2), 1)),
    TensorInfo("a.b", "no such type", (0,), "x", 38, 0),
]


def test_it_is_the_sequence_that_it_was_made_of() -> None:
    held = TensorList.of(INFOS)
    assert list(held) == INFOS
    assert TensorList.of(held) is held
    assert held[1:] == INFOS[1:]
    assert held[-1] == INFOS[-1]
    assert list(held.names()) == [i.name for i in INFOS]
    with pytest.raises(IndexError, match="tensor 4 of 4"):
        held[4]


def test_columns() -> None:
    held = TensorList.of(INFOS)
    assert held.offsets.tolist() == [i.offset for i in INFOS]
    assert held.sizes.tolist() == [i.nbytes for i in INFOS]
    assert held.files.tolist() == [0, 1, 0, 0]
    assert held.packed.tolist() == [True, True, False, True]
    assert held.kinds() == {"float32": 2, "int8": 1, "no such type": 1}
    assert held.of_type(len, np.int64).tolist() == [7, 7, 4, 12]
    assert held.of_shape(len, np.int64).tolist() == [2, 0, 2, 1]
    empty = TensorList()
    assert list(empty) == []
    assert empty.offsets.tolist() == empty.of_type(len, np.int64).tolist() == []
    assert empty.kinds() == {}


@pytest.mark.parametrize("which", [[], [3, 0], [2, 1], [0, 1, 2, 3]])
def test_some_of_them(which: list[int]) -> None:
    taken = TensorList.of(INFOS).take(np.array(which, np.int64))
    assert list(taken) == [INFOS[i] for i in which]
    assert taken.files.tolist() == [0 if INFOS[i].file == "x" else 1 for i in which]


def test_names_that_occur_twice() -> None:
    def repeated(*names: str, same_hash: bool = False) -> str | None:
        held = TensorList.of([INFOS[0]._replace(name=n) for n in names])
        hashes = [7 if same_hash else hash(n) for n in names]
        return held.repeated(np.array(hashes, np.int64))

    assert repeated() is None
    assert repeated("a", "b", "c") is None
    assert repeated("a", "b", "a") == "a"
    assert repeated("a", "b", "c", same_hash=True) is None
    assert repeated("a", "b", "b", same_hash=True) == "b"
