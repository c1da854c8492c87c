"""``mlsd skew`` and ``mlsd profile``: exit codes, formats, errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ml_systems_debugger.cli import main


@pytest.fixture
def tables(tmp_path: Path) -> tuple[str, str, str]:
    g = np.random.default_rng(0)
    paths = []
    for name, factor in (("train", 1), ("same", 1), ("other", 100)):
        lines = [
            f"{h * factor:.6f},{c}"
            for h, c in zip(g.normal(1.7, 0.1, 900), g.choice(["a", "b"], 900), strict=True)
        ]
        path = tmp_path / f"{name}.csv"
        path.write_text("height,plan\n" + "\n".join(lines) + "\n", encoding="utf-8")
        paths.append(str(path))
    return paths[0], paths[1], paths[2]


def test_same_is_zero_and_skewed_is_one(tables: tuple[str, str, str]) -> None:
    train, same, other = tables
    assert CliRunner().invoke(main, ["skew", train, same]).exit_code == 0
    found = CliRunner().invoke(main, ["skew", train, other])
    assert found.exit_code == 1
    assert "[high] height: unit change (factor 1" in found.output
    assert "Check that both pipelines use one unit" in found.output
    assert CliRunner().invoke(main, ["skew", train, other, "--fail-on", "never"]).exit_code == 0


def test_json_is_what_the_library_says(tables: tuple[str, str, str]) -> None:
    found = CliRunner().invoke(main, ["skew", tables[0], tables[2], "--format", "json"])
    terms = json.loads(found.output)
    assert set(terms) == {"schema_version", "status", "features", "metadata"}
    assert terms["status"] == "skewed"
    assert set(terms["features"][0]) >= {
        "name", "type", "skewed", "kind", "severity", "effect_size", "p_value", "statistic",
        "reference", "serving",
    }  # fmt: skip
    markdown = CliRunner().invoke(main, ["skew", tables[0], tables[2], "--format", "markdown"])
    assert markdown.output.startswith("# Skew: skewed")


def test_a_saved_profile_needs_no_training_data(
    tables: tuple[str, str, str], tmp_path: Path
) -> None:
    profile = str(tmp_path / "profile.json")
    assert CliRunner().invoke(main, ["profile", tables[0], "--output", profile]).exit_code == 0
    Path(tables[0]).unlink()
    assert CliRunner().invoke(main, ["skew", profile, tables[1]]).exit_code == 0
    assert CliRunner().invoke(main, ["skew", profile, tables[2]]).exit_code == 1


def test_missing_unreadable_and_short(tables: tuple[str, str, str], tmp_path: Path) -> None:
    missing = CliRunner().invoke(main, ["skew", tables[0], str(tmp_path / "no.csv")])
    assert missing.exit_code == 2
    assert "no.csv" in missing.output
    short = tmp_path / "short.csv"
    short.write_text("height,plan\n1.7,a\n", encoding="utf-8")
    found = CliRunner().invoke(main, ["skew", tables[0], str(short)])
    assert found.exit_code == 3
    assert "Too few rows to judge: height, plan" in found.output
    empty = tmp_path / "empty.csv"
    empty.write_text("", encoding="utf-8")
    found = CliRunner().invoke(main, ["skew", tables[0], str(empty)])
    assert found.exit_code == 3
    assert "empty.csv: an empty file" in found.output
