"""Event files: every point of the real writers, damage named with its offset."""

from __future__ import annotations

import csv
import gzip
import math
import random
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger.core import IngestionError, SignalSet, UnsupportedFormatError
from ml_systems_debugger.ingestion import TensorBoardIngestor, find_runs, open_source
from ml_systems_debugger.kernels.formats import crc32c

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "real-runs/formats/tensorboard"


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def record(data: bytes) -> bytes:
    def masked(part: bytes) -> bytes:
        crc = crc32c(part)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    head = struct.pack("<Q", len(data))
    return head + masked(head) + data + masked(data)


def event(step: int, *values: bytes, time: float = 1.7e9) -> bytes:
    summary = b"".join(field(1, value) for value in values)
    return record(b"\x09" + struct.pack("<d", time) + b"\x10" + varint(step) + field(5, summary))


def simple(tag: str, value: float) -> bytes:
    return field(1, tag.encode()) + b"\x15" + struct.pack("<f", value)


def tensor(tag: str, dtype: int, rest: bytes) -> bytes:
    return field(1, tag.encode()) + field(8, b"\x08" + varint(dtype) + rest)


HEADER = record(b"\x09" + struct.pack("<d", 1.7e9) + field(3, b"brain.Event:2"))


def points(source: Any) -> dict[str, list[tuple[int, float]]]:
    signals = TensorBoardIngestor().ingest(source)
    return {
        one.source_name or str(one.key): list(
            zip(one.steps.tolist(), one.values.tolist(), strict=True)
        )
        for one in signals.series
    }


def test_the_checksum_is_crc_32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, appendix B.4
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"") == 0


def test_simple_values_with_steps_and_times() -> None:
    data = HEADER + event(5, simple("train/loss", 0.5), simple("lr", 0.1)) + event(
        7, simple("train/loss", math.inf), time=1.7e9 + 2
    )  # fmt: skip
    signals = TensorBoardIngestor().ingest(data)
    (loss,) = signals.select("loss", split="train")
    assert loss.steps.tolist() == [5, 7]
    assert loss.values.tolist() == [0.5, math.inf]
    assert loss.timestamps is not None
    assert loss.timestamps.tolist() == [1.7e9, 1.7e9 + 2]
    assert signals.select("lr")[0].values.tolist() == [float(np.float32(0.1))]
    assert signals.unread == ()


@pytest.mark.parametrize(
    ("dtype", "rest", "value"),
    [
        (1, field(4, struct.pack("<f", 2.5)), 2.5),
        (1, b"\x2d" + struct.pack("<f", 2.5), 2.5),
        (1, field(5, struct.pack("<f", 2.5)), 2.5),
        (2, field(4, struct.pack("<d", 1e-300)), 1e-300),
        (2, field(6, struct.pack("<d", math.nan)), math.nan),
        (3, field(4, struct.pack("<i", -3)), -3.0),
        (3, field(7, varint(2**64 - 3)), -3.0),
        (9, field(10, varint(2**40)), 2.0**40),
        (10, field(11, b"\x01"), 1.0),
        (14, field(4, b"\x80\x3f"), 1.0),
        (19, field(4, np.float16(0.1).tobytes()), float(np.float16(0.1))),
        (19, field(13, varint(0x7C00)), math.inf),
        (14, field(13, varint(0x3F80)), 1.0),
        (23, field(17, varint(2**63)), 2.0**63),
    ],
)
def test_tensors_of_one_number(dtype: int, rest: bytes, value: float) -> None:
    ((_, got),) = points(HEADER + event(1, tensor("x", dtype, rest)))["x"]
    assert got == value or (math.isnan(got) and math.isnan(value))


def test_tensors_and_histograms_as_statistics() -> None:
    values = np.random.default_rng(0).normal(3, 2, 1000)
    packed = field(4, values.astype("<f8").tobytes())
    sums = (values.min(), values.max(), 1000.0, values.sum(), (values**2).sum())
    histogram = b"".join(
        bytes([number << 3 | 1]) + struct.pack("<d", v) for number, v in enumerate(sums, 1)
    )
    found = points(HEADER + event(1, tensor("t", 2, packed), field(1, b"h") + field(5, histogram)))
    for tag in ("t", "h"):
        assert found[f"{tag}/min"] == [(1, values.min())]
        assert found[f"{tag}/max"] == [(1, values.max())]
        assert found[f"{tag}/mean"][0][1] == pytest.approx(values.mean(), rel=1e-12)
        assert found[f"{tag}/std"][0][1] == pytest.approx(values.std(), rel=1e-9)


def test_what_is_no_number_is_counted() -> None:
    data = HEADER + event(1, tensor("note", 7, field(8, b"words")), simple("loss", 1.0))
    signals = TensorBoardIngestor().ingest(data)
    assert [one.name for one in signals.series] == ["loss"]
    assert signals.metadata["values_without_numbers"] == 1


def test_tags_that_sound_like_places_are_metrics() -> None:
    data = HEADER + event(3, *(simple(t, 2.0) for t in ("step", "rank", "time", "name", "split")))
    assert points(data) == {t: [(3, 2.0)] for t in ("step", "rank", "time", "name", "split")}


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_pieces_of_any_size_give_the_same(size: int) -> None:
    data = HEADER + b"".join(event(i, simple("loss", i / 2)) for i in range(50))

    class Slow:
        name = "slow"
        at = 0

        def read(self, _: int) -> bytes:
            self.at += size
            return data[self.at - size : self.at]

    assert points(Slow()) == points(data)
    assert len(points(data)["loss"]) == 50


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_torn_last_record_is_noted_and_nothing_more(cut: int) -> None:
    data = HEADER + event(1, simple("loss", 0.5)) + event(2, simple("loss", 0.25))
    signals = TensorBoardIngestor().ingest(data[:-cut])
    assert [one.values.tolist() for one in signals.series] == [[0.5]]
    assert signals.unread == ()
    assert "torn_last_record" in signals.metadata


def test_a_wrong_checksum_is_named_with_its_offset_and_the_rest_read() -> None:
    first = HEADER + event(1, simple("loss", 0.5))
    data = bytearray(first + event(2, simple("loss", 0.25)) + event(3, simple("loss", 0.125)))
    data[len(first) + 20] ^= 1
    signals = TensorBoardIngestor().ingest(bytes(data))
    assert [one.values.tolist() for one in signals.series] == [[0.5, 0.125]]
    assert f"at byte {len(first)}" in signals.unread[0]


def test_a_damaged_length_ends_the_reading() -> None:
    first = HEADER + event(1, simple("loss", 0.5))
    data = bytearray(first + event(2, simple("loss", 0.25)))
    data[len(first)] ^= 1
    signals = TensorBoardIngestor().ingest(bytes(data))
    assert [one.values.tolist() for one in signals.series] == [[0.5]]
    assert "damaged record length" in signals.unread[0]
    assert f"at byte {len(first)}" in signals.unread[0]


def test_a_length_that_is_a_lie_costs_nothing() -> None:
    head = struct.pack("<Q", 2**63)
    crc = crc32c(head)
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    data = HEADER + event(1, simple("loss", 0.5)) + head + struct.pack("<I", masked) + bytes(100)
    assert points(data) == {"loss": [(1, 0.5)]}


def test_other_content_is_refused() -> None:
    with pytest.raises(UnsupportedFormatError):
        TensorBoardIngestor().ingest(b"step,loss\n1,2\n" * 10)
    assert TensorBoardIngestor().sniff(bytes(100), "x") == 0.0
    assert TensorBoardIngestor().sniff(HEADER, "anything") == 1.0


def test_a_restart_and_gzip() -> None:
    data = HEADER + b"".join(event(s, simple("loss", s)) for s in (1, 2, 3, 2, 3, 4))
    signals = open_source(gzip.compress(data))
    assert [one.key.segment for one in signals.series] == [0, 1]


def test_the_event_files_of_a_folder_are_one_run(tmp_path: Path) -> None:
    for at in range(2):
        events = b"".join(event(10 * at + s, simple("loss", s)) for s in range(10))
        (tmp_path / f"events.out.tfevents.{at}.host").write_bytes(HEADER + events)
    assert find_runs(tmp_path) == [tmp_path]
    signals = open_source(tmp_path)
    assert signals.series[0].steps.tolist() == list(range(20))
    (tmp_path / "metrics.csv").write_text("step,loss\n1,2\n")
    assert len(find_runs(tmp_path)) == 3


def test_mutated_files_raise_nothing_but_our_errors() -> None:
    rng = random.Random(0)
    whole = HEADER + b"".join(
        event(i, simple("loss", i), tensor("x", 2, field(6, bytes(16)))) for i in range(6)
    )
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            kind, at = rng.randint(0, 3), rng.randrange(len(data))
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at : at + rng.randint(1, 9)]
            elif kind == 2:
                data[at:at] = rng.randbytes(rng.randint(1, 9))
            else:
                data[at : at + 8] = b"\xff" * 8
        refused = found = None
        try:
            found = TensorBoardIngestor().ingest(bytes(data))
        except IngestionError as error:
            refused = error
        assert refused is not None or isinstance(found, SignalSet)


def test_messages_that_are_broken_inside_a_good_frame() -> None:
    rng = random.Random(1)
    good = event(3, simple("loss", 0.5), tensor("x", 2, field(6, bytes(16))))[12:-4]
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        signals = TensorBoardIngestor().ingest(HEADER + record(bytes(data)) + HEADER)
        assert isinstance(signals, SignalSet)


def test_round_trip_with_torch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        module = pytest.importorskip("torch.utils.tensorboard")
        values = [0.5, math.nan, math.inf, -math.inf, 1e-30, 3.0]
        with module.SummaryWriter(str(tmp_path)) as writer:
            for step, value in enumerate(values):
                writer.add_scalar("train/loss", value, step * 10, walltime=1.7e9 + step)
                writer.add_scalar("double", value, step, new_style=True)
            writer.add_histogram("gradients", np.arange(100.0), 3)
            writer.add_text("note", "words", 1)
    signals = open_source(tmp_path)
    assert signals.unread == ()
    (loss,) = signals.select("loss", split="train")
    assert loss.steps.tolist() == [0, 10, 20, 30, 40, 50]
    assert np.array_equal(loss.values, np.float32(values).astype(float), equal_nan=True)
    assert loss.timestamps is not None
    assert loss.timestamps.tolist() == [1.7e9 + step for step in range(6)]
    (double,) = signals.select("double")
    assert np.array_equal(double.values, np.float32(values).astype(float), equal_nan=True)
    assert signals.select("gradients/max")[0].values.tolist() == [99.0]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real runs at {REAL}")
@pytest.mark.parametrize("run", ["criteo1tb_jax", "ogbg_jax"])
def test_real_files_equal_the_csv_beside_them(run: str) -> None:
    signals = open_source(next((REAL / run).glob("*tfevents*")))
    assert signals.unread == ()
    expected: dict[str, list[tuple[int, float]]] = {}
    with (REAL / run / "measurements.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            step = int(row.pop("global_step"))
            for name, cell in row.items():
                if cell:
                    expected.setdefault(name, []).append((step, float(cell)))
    found = {one.source_name or one.name: one for one in signals.series}
    assert set(found) - set(expected) <= {"global_step"}
    for name, pairs in expected.items():
        steps, values = zip(*pairs, strict=True)
        assert found[name].steps.tolist() == list(steps), name
        # The CSV was written with 15 digits: a value may lie on the tie between two floats.
        ulp = np.spacing(np.abs(np.float32(values))).astype(float)
        apart = np.abs(found[name].values - np.array(values))
        assert (apart <= 0.5 * ulp * (1 + 1e-6)).all(), name
