"""Run data for the fuzzer: seeds of every format, checksums mended, what a reader must say."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zlib
from pathlib import Path

from damage import DamageError

from ml_systems_debugger.core import MLSystemsDebuggerError
from ml_systems_debugger.ingestion import find_runs, open_source, read_pieces
from ml_systems_debugger.kernels.formats import crc32c

_BLOCK = 32768  # of the W&B log


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def _masked(part: bytes) -> bytes:
    crc = crc32c(part)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def event_file(records: list[bytes]) -> bytes:
    out = b""
    for data in records:
        head = struct.pack("<Q", len(data))
        out += head + _masked(head) + data + _masked(data)
    return out


def mended_events(data: bytes) -> bytes:
    """Cut bytes into records by their own lengths and give each the checksums it should have."""
    records, at = [], 0
    while at + 12 <= len(data):
        length = min(struct.unpack_from("<Q", data, at)[0], len(data) - at - 12)
        records.append(data[at + 12 : at + 12 + length])
        at += length + 16
    return event_file(records)


def broken_events(data: bytes) -> bool:
    """Whether any record of an event file is cut off or has a wrong checksum."""
    at = 0
    while at < len(data):
        head = data[at : at + 8]
        if len(head) < 8 or data[at + 8 : at + 12] != _masked(head):
            return True
        length = struct.unpack("<Q", head)[0]
        body = data[at + 12 : at + 12 + length]
        if len(body) < length or data[at + 12 + length : at + 16 + length] != _masked(body):
            return True
        at += length + 16
    return False


def wandb_file(records: list[bytes]) -> bytes:
    out = bytearray(b":W&B\xe1\xbe\x00")
    for record in records:
        left, first = record, True
        while first or left:
            room = _BLOCK - len(out) % _BLOCK
            if room < 7:
                out += bytes(room)
                continue
            part, left = left[: room - 7], left[room - 7 :]
            kind = (2 if left else 1) if first else (3 if left else 4)
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
    return bytes(out)


def mended_wandb(data: bytes) -> bytes:
    records, at = [], 7
    while at + 7 <= len(data):
        length = min(struct.unpack_from("<H", data, at + 4)[0], len(data) - at - 7)
        records.append(data[at + 7 : at + 7 + length])
        at += 7 + length
    return wandb_file(records)


def _event(step: int, *values: bytes) -> bytes:
    summary = b"".join(field(1, value) for value in values)
    return b"\x09" + struct.pack("<d", 1.7e9) + b"\x10" + varint(step) + field(5, summary)


def _item(key: str, text: str) -> bytes:
    return field(1, field(1, key.encode()) + field(16, text.encode()))


class Runs:
    """Kinds of run data, seeds, and how bytes become a path to read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        scalar = field(1, b"loss") + b"\x15" + struct.pack("<f", 0.5)
        tensor = field(1, b"lr") + field(8, b"\x08\x01" + field(2, b"") + field(4, bytes(4)))
        histogram = field(1, b"g") + field(5, b"\x09" + bytes(8) + field(6, bytes(16)))
        lines = "".join(
            f"iteration {n}/ 100 | elapsed time per iteration (ms): 11.5 | "
            f"lm loss: {8 - n / 10:.3E} | grad norm: 1.23 | number of nan iterations: 0 |\n"
            f"{{'loss': {2 - n / 10:.3f}, 'grad_norm': 0.5, 'epoch': {n}}}\n"
            for n in range(6)
        )
        state = {
            "global_step": 6, "best_metric": None, "max_steps": 10,
            "log_history": [{"step": n, "loss": 1.0 / (n + 1), "epoch": 0.1 * n} for n in range(6)],
        }  # fmt: skip
        trace = {
            "schemaVersion": 1, "distributedInfo": {"rank": 0, "world_size": 2},
            "traceEvents": [
                {"ph": "X", "cat": c, "name": f"ProfilerStep#{n}", "pid": 1, "tid": 1,
                 "ts": n * 10.0, "dur": 9.0}
                for n in range(4) for c in ("user_annotation", "kernel")
            ],
        }  # fmt: skip
        self.seeds: dict[str, list[bytes]] = {
            "events": [event_file([field(3, b"brain.Event:2"),
                                   *(_event(n, scalar, tensor, histogram) for n in range(4))])],
            "wandb": [wandb_file([field(2, _item("loss", "0.5") + _item("_step", str(n)))
                                  for n in range(4)])],
            "logs": [lines.encode(), b"step: 1 loss: 0.5\nstep: 2 loss: nan\nTraceback\n" * 3],
            "csv": [b"step,loss,grad_norm\n" + b"".join(b"%d,%f,1e-3\n" % (n, 1 / (n + 1))
                                                        for n in range(9)),
                    b'step;"a b";loss\n1;"x\ny";0,5\n2;nan;inf\n'],
            "jsonl": [b"".join(b'{"step": %d, "loss": 0.5, "nested": {"a": [1, NaN]}}\n' % n
                               for n in range(6))],
            "trainer_state": [json.dumps(state).encode()],
            "mlflow_store": [b"1700000000000 0.5 1\n1700000001000 nan 2\n1700000002000 -inf 3\n"],
            "mlflow_db": [self._database()],
            "trace": [json.dumps(trace).encode()],
            "any": [b"\x80\x04}q\x00.", b"\x1f\x8b" + bytes(20), b"step\tloss\n1\t2\n"],
        }  # fmt: skip
        with contextlib.suppress(ImportError):
            import pandas as pd

            buffer = io.BytesIO()
            pd.DataFrame({"step": [1, 2, 3], "loss": [1.0, 0.5, 0.2]}).to_parquet(buffer)
            self.seeds["parquet"] = [buffer.getvalue()]
        self.kinds = sorted(self.seeds)
        self.store = root / "mlruns" / "0" / ("a" * 32)
        (self.store / "metrics").mkdir(parents=True)
        (self.store / "meta.yaml").write_text(f"run_id: {'a' * 32}\nstatus: 3\nrun_name: x\n")

    def _database(self) -> bytes:
        import sqlite3

        path = self.root / "seed.db"
        base = sqlite3.connect(path)
        base.execute("CREATE TABLE runs (run_uuid VARCHAR(32) NOT NULL PRIMARY KEY, name VARCHAR)")
        base.execute("CREATE TABLE latest_metrics (key VARCHAR(250), value FLOAT)")
        base.execute(
            "CREATE TABLE metrics (key VARCHAR(250), value FLOAT, timestamp BIGINT, "
            "run_uuid VARCHAR(32), step BIGINT, is_nan BOOLEAN)"
        )
        base.execute("INSERT INTO runs VALUES ('a', 'x')")
        rows = [("loss", 0.5, 1_700_000_000_000, "a", n, 0) for n in range(4)]
        base.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", rows)
        base.commit()
        base.close()
        return path.read_bytes()

    def place(self, kind: str, data: bytes) -> Path:
        if kind == "mlflow_store":
            (self.store / "metrics" / "loss").write_bytes(data)
            return self.store
        name = {
            "events": "events.out.tfevents.1.h", "wandb": "run-a.wandb", "logs": "train.log",
            "csv": "m.csv", "jsonl": "m.jsonl", "trainer_state": "trainer_state.json",
            "mlflow_db": "mlflow.db", "trace": "t.pt.trace.json", "parquet": "m.parquet",
        }.get(kind, "file")  # fmt: skip
        path = self.root / name
        path.write_bytes(data)
        return path

    def run(self, kind: str, data: bytes, path: Path) -> None:
        for one in find_runs(path):
            counted = self._in_pieces(one, 1 + len(data) // 3)
            signals = open_source(one)
            if kind in MEND and counted not in (None, len(signals)):
                raise DamageError(f"{counted} values in pieces, {len(signals)} in the whole")
            for series in signals.series:
                if len(series.steps) != len(series.values):
                    raise DamageError("steps and values of different lengths")
            # A last record that is cut off is that of a file still being written: metadata says so.
            said = signals.unread or "torn_last_record" in signals.metadata
            if kind == "events" and not said and broken_events(data):
                raise DamageError("a damaged record, and nothing is said of it")

    def _in_pieces(self, path: Path, size: int) -> int | None:
        """Read piece by piece; return the number of values, None where it is refused."""
        if not path.is_file():
            return None
        try:
            return sum(len(piece) for piece in read_pieces(path, piece_bytes=size))
        except MLSystemsDebuggerError:
            return None


MEND = {"events": mended_events, "wandb": mended_wandb}
