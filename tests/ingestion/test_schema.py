"""Tables against expectations: every fault with line, column and value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ml_systems_debugger.core import ConfigurationError, IngestionError, SchemaError
from ml_systems_debugger.ingestion import ColumnRule, SchemaValidator

VALIDATOR = SchemaValidator(
    {
        "step": ColumnRule(kind="integer", complete=True, increasing=True),
        "loss": ColumnRule(minimum=0.0, maximum=100.0, finite=True),
        "note": ColumnRule(required=False, kind="text"),
    }
)


def places(source: Any, validator: SchemaValidator = VALIDATOR) -> list[tuple[Any, Any, Any]]:
    return [(e.line, e.column, e.value) for e in validator.errors(source)]


@pytest.mark.parametrize(
    "source",
    [
        b"step,loss,note\n1,2,a\n2,3,b\n",
        [{"step": 1, "loss": 0.0}, {"step": 1, "loss": 100}],
        {"step": [1, 2], "loss": np.array([1.0, 2.0])},
        b'{"step": 1, "loss": 2}\n',
    ],
)
def test_what_is_right_passes(source: Any) -> None:
    VALIDATOR.validate(source)
    assert VALIDATOR.errors(source) == []


def test_every_fault_of_a_file_with_its_line() -> None:
    source = b"step,loss\n1,2\n2,oops\n2.5,3\n,4\n1,-1\n9,nan\n10,101\n"
    assert places(source) == [
        (4, "step", 2.5), (5, "step", None), (6, "step", 1.0), (3, "loss", "oops"),
        (6, "loss", -1.0), (7, "loss", pytest.approx(float("nan"), nan_ok=True)),
        (8, "loss", 101.0),
    ]  # fmt: skip


def test_rows_and_frames() -> None:
    pandas = pytest.importorskip("pandas")
    rows = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": -3.0}]
    assert places(rows) == places(pandas.DataFrame(rows)) == [(2, "loss", -3.0)]


def test_a_missing_column_and_an_unexpected_one() -> None:
    strict = SchemaValidator({"loss": ColumnRule()}, others=False)
    (missing, extra) = strict.errors(b"step,acc\n1,2\n")[0], strict.errors(b"step,loss\n1,2\n")[0]
    assert "'loss'" in str(missing)
    assert "'step', 'acc'" in str(missing)
    assert extra.column == "step"


def test_numbers_where_text_is_expected() -> None:
    rule = SchemaValidator({"note": ColumnRule(kind="text")})
    assert places(b"step,note\n1,2\n", rule) == [(2, "note", 2.0)]
    assert places(b"step,note\n1,a\n", rule) == []


def test_the_first_error_is_raised_and_the_number_is_bounded() -> None:
    source = b"step,loss\n" + b"".join(b"%d,-1\n" % i for i in range(500))
    with pytest.raises(SchemaError, match=r"<bytes>, line 2, column 'loss'.*got -1.0"):
        VALIDATOR.validate(source)
    assert len(VALIDATOR.errors(source)) == 100
    assert len(VALIDATOR.errors(source, limit=7)) == 7


def test_what_a_reader_could_not_read_is_an_error_too() -> None:
    assert "3 cells" in str(VALIDATOR.errors(b"step,loss\n1,2,3\n2,3\n")[0])


def test_what_is_no_table_raises() -> None:
    with pytest.raises(IngestionError):
        VALIDATOR.errors(5)


@pytest.mark.parametrize("wrong", [{"kind": "float"}, {"minimum": 2.0, "maximum": 1.0}])
def test_rules_are_checked_when_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ColumnRule(**wrong)
