"""Offline W&B files: every point of the real writer, damage named with its offset."""

from __future__ import annotations

import json
import math
import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from ml_systems_debugger.core import IngestionError, SignalSet, UnsupportedFormatError
from ml_systems_debugger.ingestion import WandbIngestor, find_runs, open_source

HEAD = b":W&B\xe1\xbe\x00"
BLOCK = 32768


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def item(key: str, text: str) -> bytes:
    *front, last = key.split("/")
    if not front:
        return field(1, last.encode()) + field(16, text.encode())
    return b"".join(field(2, part.encode()) for part in (*front, last)) + field(16, text.encode())


def history(step: int, **values: str) -> bytes:
    items = b"".join(field(1, item(key.replace("__", "/"), v)) for key, v in values.items())
    return field(2, items + field(2, b"\x08" + varint(step)))


def written(*records: bytes) -> bytes:
    """Frame records as the log of blocks has it."""
    out = bytearray(HEAD)
    for record in records:
        left, first = record, True
        while first or left:
            room = BLOCK - len(out) % BLOCK
            if room < 7:
                out += bytes(room)
                continue
            part, left = left[: room - 7], left[room - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[
                first, not left
            ]
            crc = zlib.crc32(bytes([kind]) + part)
            out += struct.pack("<IHB", crc, len(part), kind) + part
            first = False
    return bytes(out)


def test_history_with_nested_keys_and_times() -> None:
    data = written(
        history(3, train__loss="0.5", lr="1e-05", _timestamp="1.7e+09", _runtime="2"),
        history(4, train__loss="NaN", lr="2e-05", _step="7", note='"words"', ok="true"),
        history(8, train__loss="-Infinity", other='"Infinity"', text='"0.5"'),
    )
    signals = open_source(data)
    (loss,) = signals.select("loss", split="train")
    assert loss.steps.tolist() == [3, 7, 8]
    assert loss.values[0] == 0.5
    assert math.isnan(loss.values[1])
    assert loss.values[2] == -math.inf
    assert loss.timestamps is not None
    assert loss.timestamps[0] == 1.7e9
    assert signals.select("lr")[0].values.tolist() == [1e-5, 2e-5]
    assert signals.select("ok")[0].values.tolist() == [1.0]
    assert signals.select("other")[0].values.tolist() == [math.inf]
    assert signals.metadata["values_without_numbers"] == 2
    assert signals.unread == ()


def test_system_metrics_and_configuration() -> None:
    stats = field(7, field(2, b"\x08" + varint(1_700_000_000)) + field(3, item("gpu.0.temp", "61")))
    run = field(17, field(4, field(1, item("lr", "0.1")) + field(1, item("_wandb", "{}"))))
    signals = open_source(written(run, history(5, loss="1"), stats, history(6, loss="0.5")))
    (temperature,) = signals.select("system/gpu.0.temp")
    assert (temperature.steps.tolist(), temperature.values.tolist()) == ([5], [61.0])
    assert temperature.timestamps is not None
    assert temperature.timestamps.tolist() == [1.7e9]
    assert signals.metadata["config"] == {"lr": 0.1}


def test_records_over_many_blocks_in_pieces_of_any_size() -> None:
    records = [history(i, loss=str(i), **{f"m{k}": "1" for k in range(3)}) for i in range(4000)]
    records[2000] = history(2000, loss="2000", note=json.dumps("x" * 100_000))
    data = written(*records)

    class Slow:
        name = "slow"

        def __init__(self, size: int) -> None:
            self.size, self.at = size, 0

        def read(self, _: int) -> bytes:
            self.at += self.size
            return data[self.at - self.size : self.at]

    for source in (data, Slow(1000), Slow(32769)):
        (loss,) = WandbIngestor().ingest(source).select("loss")
        assert loss.values.tolist() == list(range(4000))


@pytest.mark.parametrize("cut", [1, 5, 12, 20])
def test_a_torn_last_record_is_noted_and_nothing_more(cut: int) -> None:
    signals = open_source(written(history(1, loss="1"), history(2, loss="0.5"))[:-cut])
    assert signals.select("loss")[0].values.tolist() == [1.0]
    assert signals.unread == ()
    assert "torn_last_record" in signals.metadata


def test_damage_costs_its_block_and_is_named() -> None:
    data = bytearray(written(*(history(i, loss=str(i)) for i in range(5000))))
    assert len(data) > 4 * BLOCK
    data[BLOCK + 5000] ^= 1
    signals = open_source(bytes(data))
    values = signals.select("loss")[0].values.tolist()
    assert 3500 < len(values) < 5000
    assert {0.0, 4999.0} <= set(values)
    assert "damaged records, not read: at byte " in signals.unread[0]


def test_other_content_is_refused() -> None:
    with pytest.raises(UnsupportedFormatError):
        WandbIngestor().ingest(b"step,loss\n1,2\n")
    assert WandbIngestor().sniff(b":W&B but text", "x.wandb") == 0.0


def test_mutated_files_raise_nothing_but_our_errors() -> None:
    rng = random.Random(0)
    whole = written(*(history(i, loss=str(i), a__b="NaN") for i in range(8)))
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            kind, at = rng.randint(0, 2), rng.randrange(7, len(data))
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at : at + rng.randint(1, 9)]
            else:
                data[at:at] = rng.randbytes(rng.randint(1, 9))
        refused: Any = None
        found: Any = None
        try:
            found = WandbIngestor().ingest(bytes(data))
        except IngestionError as error:
            refused = error
        assert refused is not None or isinstance(found, SignalSet)


def test_broken_messages_in_good_frames() -> None:
    rng = random.Random(1)
    good = history(3, loss="0.5", a__b="1")
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        signals = WandbIngestor().ingest(written(bytes(data), history(9, loss="1")))
        last = signals.select("loss", split=None)
        assert any(9 in one.steps.tolist() for one in last)


_WRITER = """
import math, wandb
run = wandb.init(project="p", config={"lr": 0.1, "net": {"depth": 3}})
values = [0.5, math.nan, math.inf, -math.inf, 1e-30, 3.0]
for step, value in enumerate(values):
    run.log({"train/loss": value, "nested": {"a": step}}, step=step * 10)
run.finish()
"""


def test_round_trip_with_wandb(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    script = tmp_path / "train.py"
    script.write_text(_WRITER)
    quiet = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path)}
    subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env={**os.environ, **quiet}, check=True,
        capture_output=True, timeout=120,
    )  # fmt: skip
    (path,) = [run for run in find_runs(tmp_path) if run.suffix == ".wandb"]
    signals = open_source(path)
    assert signals.unread == ()
    (loss,) = signals.select("loss", split="train")
    assert loss.steps.tolist() == [0, 10, 20, 30, 40, 50]
    values = [0.5, math.nan, math.inf, -math.inf, 1e-30, 3.0]
    assert list(map(repr, loss.values.tolist())) == list(map(repr, values))
    assert signals.select("nested/a")[0].values.tolist() == [0, 1, 2, 3, 4, 5]
    assert signals.metadata["config"]["lr"] == 0.1
