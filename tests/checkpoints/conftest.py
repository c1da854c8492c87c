from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="checkpoints are written by torch")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]  # planting, jobs
