"""Third parties take part through entry points alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ml_systems_debugger import BaseDetector, RegistryError
from ml_systems_debugger.core import Registry

HERE = Path(__file__).parent

USE = """
import ml_systems_debugger as mlsd
from ml_systems_debugger.core import detectors, reporters
assert "loud_loss" in detectors, detectors.names
report = mlsd.diagnose({"loss": [1.0] * 40 + [1e6] + [1.0] * 40})
found = [d for d in report.failures if d.detector_name == "loud_loss"]
assert found and found[0].onset_step == 40, report
assert report.attributions
print(mlsd.Reporter("shout").render(report))
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A distribution as an installer leaves it: a module and its metadata."""
    (tmp_path / "loud_example.py").write_text(
        (HERE / "third_party.py").read_text()
        + "\n\nfrom ml_systems_debugger import BaseReporter\n\n"
        "class Shout(BaseReporter):\n"
        "    def render(self, report):\n"
        "        return 'SHOUT ' + report.status.value.upper()\n"
        "\n\nfrom ml_systems_debugger.reporting import VerdictReporter\n\n"
        "class Whisper(VerdictReporter):\n"
        "    def render_all(self, verdicts, *, fail_on=None):\n"
        "        return ' '.join(f'whisper {v.status} {len(v.notices)}' for v in verdicts)\n"
    )
    info = tmp_path / "loud_example-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud-example\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[ml_systems_debugger.detectors]\nloud_loss = loud_example:LoudLossDetector\n"
        "[ml_systems_debugger.reporters]\nshout = loud_example:Shout\n"
        "whisper = loud_example:Whisper\n"
    )
    return tmp_path


def run(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    setup = f"import sys; sys.path[:0] = {[str(p) for p in paths]!r}\n"
    return subprocess.run(
        [sys.executable, "-c", setup + code], capture_output=True, text=True, check=False
    )


def test_a_third_party_detector_and_reporter_take_part(installed: Path) -> None:
    done = run(USE, installed)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "SHOUT FAILURES"


def test_the_commands_take_the_formats_of_third_parties(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("step,loss\n" + "".join(f"{n},nan\n" for n in range(50)))
    np.save(tmp_path / "m.npy", np.array([1.0, np.nan]))
    command = "from ml_systems_debugger.cli import main; main({!r})"
    for words, output in (
        (["diagnose", str(tmp_path / "m.csv"), "--format", "shout"], "SHOUT FAILURES"),
        (["diagnose", str(tmp_path / "m.csv"), "--format", "whisper"], "whisper failures"),
        (["scan", str(tmp_path / "m.npy"), "--format", "whisper"], "whisper findings 1"),
    ):
        done = run(command.format(words), installed)
        assert done.returncode == 1, done.stderr
        assert output in done.stdout
    done = run(command.format(["scan", str(tmp_path / "m.npy"), "--format", "shout"]), installed)
    assert done.returncode == 2  # it knows runs alone
    assert "'shout' is not one of" in done.stderr


def test_two_claimants_of_a_name_are_an_error_that_names_both(installed: Path) -> None:
    points = installed / "loud_example-1.0.dist-info" / "entry_points.txt"
    points.write_text(
        "[ml_systems_debugger.detectors]\nnan_detection = loud_example:LoudLossDetector\n"
    )
    done = run("import ml_systems_debugger as m; m.MLSystemsDebugger()", installed)
    assert done.returncode != 0
    assert "loud_example:LoudLossDetector" in done.stderr
    assert "NaNDetectionDetector" in done.stderr


def test_an_entry_point_that_does_not_load_is_named(installed: Path) -> None:
    points = installed / "loud_example-1.0.dist-info" / "entry_points.txt"
    points.write_text("[ml_systems_debugger.detectors]\nloud_loss = no_such_module:Thing\n")
    done = run("import ml_systems_debugger as m; m.MLSystemsDebugger()", installed)
    assert done.returncode != 0
    assert "loud_loss" in done.stderr
    assert "no_such_module" in done.stderr


def test_the_registry_refuses_a_second_class_by_hand() -> None:
    registry: Registry[BaseDetector] = Registry("detector", "json", "no.such.group")

    class A(BaseDetector):
        def detect(self, signals, context=None):  # type: ignore[no-untyped-def]
            raise NotImplementedError

    class B(A):
        pass

    registry.register("same")(A)
    registry.register("same")(A)
    with pytest.raises(RegistryError, match=r"A.*B"):
        registry.register("same")(B)
    with pytest.raises(RegistryError, match="no detector is named 'other'; known: same"):
        registry.get("other")
