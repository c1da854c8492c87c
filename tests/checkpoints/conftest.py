from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="checkpoints are written by torch")
sys.path.insert(0, str(Path(__file__).parent))  # for `planting`
