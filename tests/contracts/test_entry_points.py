"""Third parties take part through entry points alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
    )
    info = tmp_path / "loud_example-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud-example\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[ml_systems_debugger.detectors]\nloud_loss = loud_example:LoudLossDetector\n"
        "[ml_systems_debugger.reporters]\nshout = loud_example:Shout\n"
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
