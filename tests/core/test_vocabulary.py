"""Severities, failure modes, causes, parameters and errors."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest

from ml_systems_debugger.core import (
    ConfigurationError,
    FailureMode,
    IngestionError,
    MLSystemsDebuggerError,
    RootCause,
    SchemaError,
    Severity,
    check_count,
    check_fraction,
    check_positive,
    check_range,
    failure_mode,
    register_failure_mode,
    register_root_cause,
    root_cause,
    word,
)


def test_severities_are_ordered_also_against_their_words() -> None:
    for (i, a), (j, b) in itertools.product(enumerate(Severity), repeat=2):
        for other in (b, b.value):
            assert (a < other, a <= other, a > other, a >= other, a == other) == (
                i < j, i <= j, i > j, i >= j, i == j,
            )  # fmt: skip
            assert (other < a) == (j < i)
    assert max(Severity) is Severity.CRITICAL
    assert f"{Severity.HIGH}" == "high"


@pytest.mark.parametrize("other", ["urgent", "HIGH", 3, None])
def test_other_words_have_no_rank(other: object) -> None:
    with pytest.raises(TypeError):
        _ = other > Severity.HIGH  # type: ignore[operator]
    with pytest.raises(TypeError):
        _ = other >= Severity.HIGH  # type: ignore[operator]
    assert other != Severity.HIGH


def test_words_of_modes_and_causes() -> None:
    assert failure_mode("learning_rate_instability") is FailureMode.LR_INSTABILITY
    assert root_cause("unknown") is RootCause.UNKNOWN
    assert word(FailureMode.NAN_DETECTED) == "nan_detected"
    assert pickle.loads(pickle.dumps(FailureMode.LOSS_SPIKE)) is FailureMode.LOSS_SPIKE  # noqa: S301


def test_third_parties_register_their_own() -> None:
    name = register_failure_mode("acme:lost_packets")
    assert register_failure_mode(name) == name
    assert failure_mode(name) == name
    assert root_cause(register_root_cause("acme:cable")) == "acme:cable"
    with pytest.raises(ConfigurationError, match="unknown root cause 'acme:lost_packets'"):
        root_cause(name)


@pytest.mark.parametrize("name", ["mine", "Acme:x", "acme:", "acme:x y", "", 3])
def test_names_of_another_form_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="written vendor:name in lower case"):
        register_failure_mode(name)


@pytest.mark.parametrize("value", ["nope", None, 3, ["loss_spike"]])
def test_what_is_no_mode_is_named(value: str) -> None:
    with pytest.raises(ConfigurationError, match="unknown failure mode"):
        failure_mode(value)


@pytest.mark.parametrize("value", [np.nan, 0.0, -1, np.inf, "2", None, 10**400, 1j])
def test_positive(value: float) -> None:
    with pytest.raises(ConfigurationError, match=r"ratio (is a number|lies in)"):
        check_positive(ratio=value)
    check_positive(ratio=np.float32(0.1), other=10**300)


@pytest.mark.parametrize("value", [-0.1, 1.1, "0.5", float("nan")])
def test_fraction(value: float) -> None:
    with pytest.raises(ConfigurationError, match="share"):
        check_fraction(share=value)
    check_fraction(share=0, other=1.0)


@pytest.mark.parametrize("value", [0, 1.0, True, "3", None])
def test_count(value: int) -> None:
    with pytest.raises(ConfigurationError, match="window is an int of at least 1, got"):
        check_count(window=value)
    check_count(window=np.int64(3))


def test_range_says_which_end_is_open() -> None:
    with pytest.raises(ConfigurationError, match=r"x lies in \(0, 1\], got 0"):
        check_range("x", 0, 0, 1, open_low=True)
    check_range("x", 0, 0, 1)


def test_errors_name_the_place_and_survive_pickle() -> None:
    error = SchemaError(
        "no number", source="a.csv", line=3, column="loss", offset=7, value="x" * 200
    )
    text = str(error)
    assert text.startswith("a.csv, line 3, column 'loss', byte 7: no number (got 'xxx")
    assert text.endswith("...)")
    assert len(text) < 160
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(again), again.line, again.source, type(again)) == (text, 3, "a.csv", SchemaError)
    assert str(IngestionError("empty")) == "empty"
    assert issubclass(ConfigurationError, (ValueError, MLSystemsDebuggerError))
