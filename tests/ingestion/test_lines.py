"""Where steps stand in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_systems_debugger.ingestion import lines
from ml_systems_debugger.ingestion.lines import lines_of_steps


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("step,loss\n0,1\n5,2\n5,3\n9,4\n", {5: 3, 9: 5}),
        ("\n\nloss;global_step\n1;0\n2;5\n4;9.0\n", {5: 5, 9: 6}),
        ('note\tstep\n"a\nb"\t5\nc\t9\n', {5: 2, 9: 4}),
        ('{"step": 0}\n{"loss": 1}\nno json\n[1]\n{"step": 5.0}\n', {5: 5}),
        ('{"iteration": 5, "loss": 1}\r\n{"iteration": 9}\r\n', {5: 1, 9: 2}),
        ("loss,accuracy\n1,2\n", {}),
        ("", {}),
        ("step,loss\n5.5,1\nx,1\n", {}),
        ("step\n1e400\nnan\n", {}),
    ],
)
def test_lines(tmp_path: Path, text: str, expected: dict[int, int]) -> None:
    path = tmp_path / "m.txt"
    path.write_bytes(text.encode())
    assert lines_of_steps(path, [5, 9, 77]) == expected
    for step, line in expected.items():
        assert str(step) in text.split("\n")[line - 1] or '"' in text


def test_what_cannot_be_looked_at_has_no_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lines_of_steps(tmp_path, [1]) == {}
    assert lines_of_steps(tmp_path / "missing", [1]) == {}
    (tmp_path / "m.csv").write_text("step\n1\n")
    assert lines_of_steps(tmp_path / "m.csv", []) == {}
    (tmp_path / "b.bin").write_bytes(bytes(range(256)) * 50)
    assert lines_of_steps(tmp_path / "b.bin", [1]) == {}
    monkeypatch.setattr(lines, "MAX_BYTES", 3)
    assert lines_of_steps(tmp_path / "m.csv", [1]) == {}
