"""Native parsing of numbers against the plain way, cell by cell."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_systems_debugger.ingestion._numbers import parse_cells, with_odd_cells
from ml_systems_debugger.kernels.formats import parse_delimited

CELL = st.one_of(
    st.floats().map(repr),
    st.integers(-(10**25), 10**25).map(str),
    st.from_regex(r"[-+]?[0-9]{0,25}\.?[0-9]{0,25}([eE][-+]?[0-9]{1,4})?", fullmatch=True),
    st.sampled_from(["", " ", "nan", "NaN", "-inf", "Infinity", "+INF", "1_000", "0x10", "NA", "x",
                     "1e", ".", "-", "+", "1.5.2", "infinit", "nano", "1d5", "True", "1.#INF"]),
)  # fmt: skip


def bits(values: np.ndarray) -> list[str]:
    return [repr(v) for v in values.tolist()]


@given(st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=20))
def test_every_cell_is_what_python_says(rows: list[list[str]]) -> None:
    block = "\n".join(",".join(row) for row in rows).encode()
    found = parse_delimited(block, ",", 3)
    assert found is not None
    count, columns, odd = found
    assert count == len(rows)
    for at, (values, places) in enumerate(columns):
        mine = [(row, cell.decode()) for row, column, cell in odd if column == at]
        got, got_places, bad = with_odd_cells(values, places, mine)
        expected, expected_places, expected_bad = parse_cells([row[at] for row in rows])
        assert bits(got) == bits(expected)
        every = list(range(len(rows)))
        assert (every if got_places is None else got_places.tolist()) == (
            every if expected_places is None else expected_places.tolist()
        )
        assert [row for row, _ in bad] == [row for row, _ in expected_bad]


@pytest.mark.parametrize(
    "text",
    ["9007199254740993", "0.1", "1e22", "1e23", "123456789012345678", "2.2250738585072014e-308",
     "5e-324", "2e-324", "1.7976931348623157e308", "1.8e308", "-0.0", "1e-400", "0e999",
     "0.000000000000000000000000000001", "100000000000000000000000", "8.41e21",
     "9.5367431640625e-7",     "179769313486231580793" + "0" * 290],
)  # fmt: skip
def test_numbers_are_rounded_correctly(text: str) -> None:
    found = parse_delimited(text.encode(), ",", 1)
    assert found is not None
    (value,) = found[1][0][0].tolist()
    assert repr(value) == repr(float(text))


@pytest.mark.parametrize("block", [b"1,2\n3\n", b"1,2,3\n", b"1,2\n\n3,4\n", b"1\n", b"\n"])
def test_rows_of_other_widths_are_left_to_the_caller(block: bytes) -> None:
    assert parse_delimited(block, ",", 2) is None


def test_line_ends() -> None:
    for block in (b"1,2\r\n3,4\r\n", b"1,2\n3,4", b" 1 ,\t2\n3,4 \n"):
        found = parse_delimited(block, ",", 2)
        assert found is not None
        assert [values.tolist() for values, _ in found[1]] == [[1.0, 3.0], [2.0, 4.0]]


def test_arguments_are_checked() -> None:
    for delimiter in ("", ",,", "\n"):
        with pytest.raises(ValueError, match="delimiter"):
            parse_delimited(b"1", delimiter, 1)
    with pytest.raises(ValueError, match="columns"):
        parse_delimited(b"1", ",", 0)


def test_mutated_blocks_never_crash() -> None:
    rng = random.Random(0)
    whole = b"".join(b"%d,%r,nan\n" % (i, math.sin(i)) for i in range(20))
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        found = parse_delimited(bytes(data), ",", 3)
        assert found is None or all(len(values) <= found[0] for values, _ in found[1])
