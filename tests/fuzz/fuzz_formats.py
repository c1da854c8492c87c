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
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:  # the tests run a slice of mutations without coverage to guide them
    atheris = None

sys.path.insert(0, str(Path(__file__).parent))
watched = (
    contextlib.nullcontext()
    if atheris is None
    else atheris.instrument_imports(include=["ml_systems_debugger"])
)
with watched:
    from damaged_runs import MEND, Runs  # the readers of runs come with it

    from ml_systems_debugger.checkpoints import Options, scan
    from ml_systems_debugger.core import MLSystemsDebuggerError

import mutate_checkpoints  # noqa: E402
from damage import DamageError  # noqa: E402
from oracles import contradicted  # noqa: E402

SECONDS = 2.0
ALLOWANCE = 64 << 20
TRACED_EVERY = 16


# ---- checkpoints --------------------------------------------------------------------------------


def torch_archive(value: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


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
        self.archive = torch_archive(values)
        self.seeds["torch_pickle"] = [mutate_checkpoints.pickle_of(self.archive)]
        self.deepspeed: dict[str, bytes] = {}
        folder = root / "seed"
        mutate_checkpoints.distributed_seed(folder)
        for part in (".metadata", "__0_0.distcp"):
            self.seeds[f"dcp {part}"] = [(folder / part).read_bytes()]
            self._copy(folder, root / f"dcp {part}")
        mutate_checkpoints.deepspeed_seed(root / "deepspeed")
        for part in mutate_checkpoints.DEEPSPEED_FILES[:2]:
            whole = (root / "deepspeed" / part).read_bytes()
            self.deepspeed[f"deepspeed {part}"] = whole
            self.seeds[f"deepspeed {part}"] = [mutate_checkpoints.pickle_of(whole)]
            self._copy(root / "deepspeed", root / f"deepspeed {part}")
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
            path.write_bytes(mutate_checkpoints.with_pickle(self.archive, data))
        elif kind in self.deepspeed:
            path = self.root / kind
            whole = mutate_checkpoints.with_pickle(self.deepspeed[kind], data)
            (path / kind.removeprefix("deepspeed ")).write_bytes(whole)
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
        contradicted(report, path)


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
                # What the oracles import is no part of a scan.
                subject.run(kind, seed, subject.place(kind, seed))
                data = bytes([number]) + seed
                (corpus / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
        atheris.Setup(
            [sys.argv[0], str(corpus), f"-max_total_time={arguments.seconds}", "-max_len=65536",
             "-timeout=300", "-rss_limit_mb=3000", "-print_final_stats=1", "-verbosity=1",
             f"-artifact_prefix={corpus.parent}/found-"],
            campaign, custom_mutator=campaign.mutate,
        )  # fmt: skip
        atheris.Fuzz()


if __name__ == "__main__":
    main()
