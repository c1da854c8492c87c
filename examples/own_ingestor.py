"""An ingestor of your own, for a format that only your team has.

Here each line is ``<step>|<key>:<value>;<key>:<value>``. The ingestor says which
input it understands, returns signals, and names file, line and value where it
cannot read one.

    python examples/own_ingestor.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import ml_systems_debugger as mlsd
from ml_systems_debugger.core import BaseIngestor, IngestionError, Signal, SignalSet


class PipeLog(BaseIngestor):
    """Reads ``step|key:value;key:value`` lines from files named ``*.pipelog``."""

    name = "pipelog"

    def validate_schema(self, data: Any) -> bool:
        """Return whether `data` is the path of such a file."""
        return isinstance(data, (str, Path)) and Path(data).suffix == ".pipelog"

    def ingest(self, source: Any) -> SignalSet:
        """Read the file whole.

        Raises
        ------
        IngestionError
            With file, line and value, for a line of another form.
        """
        signals: list[Signal] = []
        lines = Path(source).read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            signals += self._signals(line, number, str(source))
        return SignalSet.from_signals(signals, {"source": str(source), "format": self.name})

    def _signals(self, line: str, number: int, source: str) -> list[Signal]:
        try:
            step, _, rest = line.partition("|")
            pairs = [pair.split(":") for pair in rest.split(";")]
            return [Signal(key, float(value), step=int(step)) for key, value in pairs]
        except ValueError as error:
            raise IngestionError(
                "expected step|key:value;key:value", source=source, line=number, value=line
            ) from error


def main() -> None:
    """Write such a file, diagnose it, and show the error of a broken one."""
    debugger = mlsd.MLSystemsDebugger().add_ingestor(PipeLog())
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "run.pipelog"
        losses = [2.0 * 0.99**step for step in range(80)] + [float("nan")] * 20
        good.write_text("\n".join(f"{s}|loss:{v};lr:0.001" for s, v in enumerate(losses)))
        report = debugger.debug(good)
        print(f"{report.status}: {report.failures[0].failure_mode} from step "
              f"{report.failures[0].onset_step}")  # fmt: skip
        broken = Path(folder) / "broken.pipelog"
        broken.write_text("0|loss:1.0\n1|loss=0.9\n")
        try:
            debugger.debug(broken)
        except IngestionError as error:
            print(f"line {error.line}: {error.reason} (got {error.value!r})")


if __name__ == "__main__":
    main()
