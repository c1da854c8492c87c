"""Coverage-guided fuzzing of every reader of untrusted files, with atheris.

    python tests/fuzz/fuzz_formats.py checkpoints [--seconds 600] [--corpus DIR] [--only KIND]
    python tests/fuzz/fuzz_formats.py runs [--seconds 600] [--corpus DIR] [--only KIND]
    python tests/fuzz/fuzz_formats.py checkpoints --replay FILE...

The first byte of an input chooses the format, the rest is the file, or the part
of one that matters (a pickle is put into an archive that is right, checksums are
mended now and then, so that the code behind them is reached). A failure is any
error but the package's own, two seconds of processor time, an allocation beyond
twice the size and 64 MB, or "sound" about a file that the format's own library
refuses. Needs atheris; the corpus is kept, so that a campaign may be cut up.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import re
import struct
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:  # the tests run a slice of mutations without coverage to guide them
    atheris = None

watched = (
    contextlib.nullcontext()
    if atheris is None
    else atheris.instrument_imports(include=["ml_systems_debugger"])
)
with watched:
    from ml_systems_debugger.checkpoints import Options, scan
    from ml_systems_debugger.core import MLSystemsDebuggerError
    from ml_systems_debugger.ingestion import find_runs, open_source
    from ml_systems_debugger.kernels.formats import crc32c

import numpy as np  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
import mutate_checkpoints  # noqa: E402

SECONDS = 2.0
ALLOWANCE = 64 << 20
TRACED_EVERY = 16
_BLOCK = 32768  # of the W&B log


class DamageError(AssertionError):
    """A rule that a reader broke."""


# ---- checkpoints --------------------------------------------------------------------------------


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def torch_members(value: Any) -> dict[str, bytes]:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}


class Checkpoints:
    """Kinds of checkpoint, a seed for each, and how bytes become a path to scan."""

    def __init__(self, root: Path) -> None:
        import torch

        self.root = root
        self.seeds: dict[str, list[bytes]] = {n: [d] for n, d in mutate_checkpoints.seeds().items()}
        values = {
            "w": torch.randn(6, 8), "view": torch.randn(8, 6).t()[1:4],
            "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "groups": [{"lr": 0.1}]},
        }  # fmt: skip
        self.members = torch_members(values)
        self.seeds["torch_pickle"] = [self.members["data.pkl"]]
        folder = root / "seed"
        mutate_checkpoints.distributed_seed(folder)
        for part in (".metadata", "__0_0.distcp"):
            self.seeds[f"dcp {part}"] = [(folder / part).read_bytes()]
            self._copy(folder, root / f"dcp {part}")
        shapes = [{"a.weight": torch.Size([7, 5]), "a.bias": torch.Size([7])}]
        deepspeed = root / "deepspeed"
        deepspeed.mkdir()
        optimizer = {
            "optimizer_state_dict": {
                "zero_stage": 2, "partition_count": [1],
                "single_partition_of_fp32_groups": [torch.randn(42)],
            }
        }  # fmt: skip
        torch.save(optimizer, deepspeed / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt")
        self.model = torch_members(
            {"module": {"a.weight": torch.randn(7, 5)}, "param_shapes": shapes}
        )
        self.seeds["deepspeed"] = [self.model["data.pkl"]]
        index = root / "index"
        index.mkdir()
        (index / "a.safetensors").write_bytes(self.seeds["safetensors"][0])
        names = dict.fromkeys(("layers.0.w", "layers.1.w", "ids"), "a.safetensors")
        self.seeds["index"] = [json.dumps({"metadata": {}, "weight_map": names}).encode()]
        self.kinds = sorted(self.seeds)

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        target.mkdir()
        for path in source.iterdir():
            (target / path.name).write_bytes(path.read_bytes())

    def place(self, kind: str, data: bytes) -> Path:
        path = self.root / "file"
        if kind == "torch_pickle":
            path.write_bytes(
                zipped({f"m/{n}": d for n, d in {**self.members, "data.pkl": data}.items()})
            )
        elif kind == "deepspeed":
            members = {**self.model, "data.pkl": data}
            path = self.root / "deepspeed"
            (path / "mp_rank_00_model_states.pt").write_bytes(
                zipped({f"m/{n}": d for n, d in members.items()})
            )
        elif kind.startswith("dcp "):
            path = self.root / kind
            (path / kind[4:]).write_bytes(data)
        elif kind == "index":
            path = self.root / "index" / "m.safetensors.index.json"
            path.write_bytes(data)
        else:
            path.write_bytes(data)
        return path

    def run(self, kind: str, data: bytes, path: Path) -> None:
        report = scan(path, workers=1, options=Options(inflate=True))
        str(report)
        report.to_json()
        if report.status.value == "incomplete":
            return
        # What is only left over or odd is said as a finding, and is no refusal.
        said = {f.code for f in report.findings} & {"trailing_bytes", "strange_header"}
        judge = REFERENCES.get(report.metadata["format"])
        if judge is not None and path.is_file() and not said:
            names = {t.name for t in report.tensors}
            try:
                judge(data, names)
            except DamageError:
                raise
            except Exception as error:
                raise DamageError(
                    f"{kind} is sound here, and refused by its library: {error!r}"
                ) from error


def _safetensors(data: bytes, names: set[str]) -> None:
    from safetensors import deserialize

    if {n for n, _ in deserialize(data)} != names:
        raise DamageError("the library sees other tensors")


def _npy(data: bytes, names: set[str]) -> None:
    np.load(io.BytesIO(data), allow_pickle=False)


def _npz(data: bytes, names: set[str]) -> None:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        if {n.removesuffix(".npy") for n in archive.files} != names:
            raise DamageError("the library sees other arrays")


REFERENCES: dict[str, Callable[[bytes, set[str]], None]] = {
    "safetensors": _safetensors, "npy": _npy, "npz": _npz,
}  # fmt: skip


# ---- run data -----------------------------------------------------------------------------------


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
            signals = open_source(one)
            for series in signals.series:
                if len(series.steps) != len(series.values):
                    raise DamageError("steps and values of different lengths")
            # A last record that is cut off is that of a file still being written: metadata says so.
            said = signals.unread or "torn_last_record" in signals.metadata
            if kind == "events" and not said and broken_events(data):
                raise DamageError("a damaged record, and nothing is said of it")


MEND = {"events": mended_events, "wandb": mended_wandb}


# ---- the campaign -------------------------------------------------------------------------------


class Campaign:
    """Runs one input and holds it to the rules."""

    def __init__(
        self, subject: Checkpoints | Runs, only: str | None, keep: Path | None = None
    ) -> None:
        self.subject = subject
        self.keep = keep
        self.known: set[str] = set()
        self.kinds = [only] if only else subject.kinds
        self.count = 0

    def __call__(self, data: bytes) -> None:
        try:
            self.attempt(data)
        except Exception as error:
            if self.keep is None:
                raise
            # One of each kind is kept, and the campaign goes on.
            inner = traceback.extract_tb(error.__traceback__)[-1]
            text = re.sub(r"\d+", "#", str(error))[:60]
            place = f"{type(error).__name__}-{Path(inner.filename).stem}-{inner.lineno}-{text}"
            if place not in self.known:
                self.known.add(place)
                name = f"found-{hashlib.sha1(data, usedforsecurity=False).hexdigest()[:12]}"
                (self.keep / name).write_bytes(data)
                print(f"\nFOUND {name}: {place}: {error}"[:500], file=sys.stderr, flush=True)

    def attempt(self, data: bytes) -> None:
        """Run one input; raise what is wrong."""
        if not data:
            return
        kind = self.kinds[data[0] % len(self.kinds)]
        content = data[1:]
        path = self.subject.place(kind, content)
        self.count += 1
        traced = self.count % TRACED_EVERY == 0
        if traced:
            tracemalloc.start()
        began = time.process_time()
        try:
            self.subject.run(kind, content, path)
        except MLSystemsDebuggerError:
            pass
        except Exception:
            print(f"\nkind {kind!r}, {len(content)} bytes", file=sys.stderr)
            raise
        finally:
            spent = time.process_time() - began
            peak = 0
            if traced:
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
        if spent > SECONDS * (4 if traced else 1):
            raise DamageError(f"{kind}: {spent:.1f} s of processor time for {len(content)} bytes")
        if peak > 2 * len(content) + ALLOWANCE:
            raise DamageError(f"{kind}: {peak / 1e6:.0f} MB for {len(content)} bytes")

    def mutate(self, data: bytes, limit: int, seed: int) -> bytes:
        """Change an input; checksums of formats that have them are mended half of the time."""
        head, content = data[:1] or b"\0", data[1:]
        kind = self.kinds[head[0] % len(self.kinds)]
        content = bytes(atheris.Mutate(content, max(1, limit - 1)))
        if kind in MEND and seed % 2:
            content = MEND[kind](content)[: limit - 1]
        return head + content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subject", choices=("checkpoints", "runs"))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--only", help="one format alone")
    parser.add_argument(
        "--keep-going", action="store_true", help="keep one input of each failure, and go on"
    )
    parser.add_argument(
        "--replay", nargs="+", type=Path, help="run these inputs once, and no other"
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:  # noqa: S108
        root = Path(name)
        subject = (Checkpoints if arguments.subject == "checkpoints" else Runs)(root)
        campaign = Campaign(subject, arguments.only)
        if arguments.replay:
            for path in arguments.replay:
                campaign(path.read_bytes())
                print(f"{path}: all right")
            return
        if atheris is None:
            parser.error("a campaign takes atheris: pip install atheris")
        corpus = arguments.corpus or Path(tempfile.mkdtemp(prefix="fuzz-formats-"))
        corpus.mkdir(parents=True, exist_ok=True)
        if arguments.keep_going:
            campaign.keep = corpus.parent
        for number, kind in enumerate(campaign.kinds):
            for seed in subject.seeds[kind]:
                data = bytes([number]) + seed
                (corpus / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
        atheris.Setup(
            [sys.argv[0], str(corpus), f"-max_total_time={arguments.seconds}", "-max_len=65536",
             "-timeout=60", "-rss_limit_mb=3000", "-print_final_stats=1", "-verbosity=1",
             f"-artifact_prefix={corpus.parent}/found-"],
            campaign, custom_mutator=campaign.mutate,
        )  # fmt: skip
        atheris.Fuzz()


if __name__ == "__main__":
    main()
