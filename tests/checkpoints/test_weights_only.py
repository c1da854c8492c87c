"""What torch.load refuses by default is said, and nothing else."""

from __future__ import annotations

import argparse
import datetime
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ml_systems_debugger import scan  # noqa: E402
from ml_systems_debugger.checkpoints import _weights_only  # noqa: E402

SAVED: dict[str, Any] = {
    "plain": {"a": [1, 2.5, "x", None, True, (1, 2), 2**40]},
    "ordered": OrderedDict(a=1),
    "counter": Counter("ab"),
    "set": {1, 2},
    "size": torch.Size([1, 2]),
    "dtype": [torch.float32, torch.float8_e4m3fn, torch.uint16, torch.complex64],
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "layout": torch.strided,
    "device": torch.device("cpu"),
    "bytes": b"abc",
    "bytearray": bytearray(b"abc"),
    "complex": 1j,
    "half": torch.ones(2, dtype=torch.float16),
    "sparse": torch.eye(3).to_sparse(),
    "optimizer": torch.optim.SGD([torch.ones(1)], lr=0.1).state_dict(),
    "namespace": argparse.Namespace(lr=0.1),
    "default": defaultdict(list),
    "frozen": frozenset({1}),
    "slice": slice(1, 2),
    "scalar": np.float64(0.5),
    "array": np.ones(3),
    "path": PurePosixPath("/a"),
    "date": datetime.date(2026, 1, 2),
    "long text": "x" * 300,
    "long integer": 2**3000,
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", SAVED)
def test_what_is_said_is_what_torch_does(tmp_path: Path, name: str, protocol: int) -> None:
    path = tmp_path / "m.pt"
    torch.save({"w": torch.ones(2), name: SAVED[name]}, path, pickle_protocol=protocol)
    try:
        torch.load(path)
    except Exception:  # noqa: BLE001 - whatever it raises
        refused = True
    else:
        refused = False
    found = [f for f in scan(path).findings if f.code == "not_weights_only"]
    assert bool(found) == refused, found


def test_the_message_names_what_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "best": np.float64(0.5)}, tmp_path / "m.pt")
    (found,) = [f for f in scan(tmp_path / "m.pt").findings if f.code == "not_weights_only"]
    assert found.severity.value == "low"
    assert "m.pt: torch.load refuses it by default (weights_only=True), for numpy" in found.message
    assert "numpy.dtype" in found.evidence["globals"]
    torch.save({"w": torch.ones(2)}, tmp_path / "m.pt", pickle_protocol=4)
    (found,) = [f for f in scan(tmp_path / "m.pt").findings if f.code == "not_weights_only"]
    assert "FRAME" in found.evidence["opcodes"]


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="the names are of torch 2.13")
def test_the_names_are_those_of_torch() -> None:
    assert torch._weights_only_unpickler._get_allowed_globals().keys() == _weights_only._NAMES
