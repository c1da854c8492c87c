"""Registries: one owner per name, entry points, many threads."""

from __future__ import annotations

import importlib.metadata
import sys
import threading
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ml_systems_debugger.core import Registry, RegistryError
from ml_systems_debugger.core import registry as module


class One:
    name = ""


class Two:
    name = ""


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> Registry[Any]:
    monkeypatch.setitem(sys.modules, "built_in_things", ModuleType("built_in_things"))
    return Registry("thing", "built_in_things", "things")


def points(monkeypatch: pytest.MonkeyPatch, **named: str) -> None:
    found = [EntryPoint(name, value, "things") for name, value in named.items()]
    monkeypatch.setattr(module, "entry_points", lambda group: found)


def test_registered_and_found(empty: Registry[Any]) -> None:
    assert empty.register("one")(One) is One
    assert (empty.get("one"), One.name) == (One, "one")
    assert "one" in empty
    assert (list(empty), len(empty), dict(empty.items())) == (["one"], 1, {"one": One})
    empty.register("one")(One)  # once more is fine


def test_a_second_claimant_is_an_error_with_both(empty: Registry[Any]) -> None:
    empty.register("one")(One)
    with pytest.raises(RegistryError, match=r"thing 'one' is claimed by both .*One and .*Two"):
        empty.register("one")(Two)
    assert empty.get("one") is One


def test_an_unknown_name_lists_the_known(empty: Registry[Any]) -> None:
    with pytest.raises(RegistryError, match="no thing is named 'x'; known: none"):
        empty.get("x")
    empty.register("one")(One)
    with pytest.raises(RegistryError, match="known: one"):
        empty.get("x")


def test_only_classes_are_registered(empty: Registry[Any]) -> None:
    with pytest.raises(RegistryError, match=r"thing 'one' is a class, got"):
        empty.register("one")(One())  # type: ignore[arg-type]


def test_entry_points_load_when_asked_and_take_their_name(
    empty: Registry[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    points(monkeypatch, path="pathlib:Path", broken="no_such_module:X", number="math:pi")
    assert empty.names == ("broken", "number", "path")
    with pytest.raises(
        RegistryError, match="'broken' from no_such_module:X does not load: ModuleNot"
    ):
        empty.get("broken")
    with pytest.raises(RegistryError, match=r"'number' is a class, got 3.14"):
        empty.get("number")
    fake = ModuleType("third_party")
    fake.One = One  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "third_party", fake)
    points(monkeypatch, other="third_party:One")
    empty.reload()
    assert empty.get("other") is One
    assert One.name == "other"


def test_an_entry_point_against_a_registered_class(
    empty: Registry[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty.register("path")(One)
    points(monkeypatch, path="pathlib:Path")
    with pytest.raises(RegistryError, match=r"claimed by both .*One and pathlib:Path"):
        empty.names  # noqa: B018


def test_a_registration_against_an_entry_point(
    empty: Registry[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    points(monkeypatch, path="pathlib:Path")
    assert empty.names == ("path",)
    with pytest.raises(RegistryError, match=r"claimed by both pathlib:Path and .*One"):
        empty.register("path")(One)


def test_an_entry_point_may_name_a_re_export(
    empty: Registry[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = ModuleType("third_party")
    fake.One = One  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "third_party", fake)
    points(monkeypatch, one="third_party:One")
    empty.register("one")(One)
    assert empty.names == ("one",)
    assert empty.get("one") is One


def test_two_entry_points_of_one_name(
    empty: Registry[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = [EntryPoint("x", "a:A", "things"), EntryPoint("x", "b:B", "things")]
    monkeypatch.setattr(module, "entry_points", lambda group: twice)
    with pytest.raises(RegistryError, match="'x' is claimed by both a:A and b:B"):
        empty.names  # noqa: B018
    same = [EntryPoint("x", "a:A", "things")] * 2  # one distribution, twice on the path
    monkeypatch.setattr(module, "entry_points", lambda group: same)
    assert empty.names == ("x",)
    assert importlib.metadata.entry_points is not None


def test_an_import_that_registers_while_another_thread_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import holds its module's lock and wants the registry's; asking must not hold both."""
    registry: Registry[Any] = Registry("thing", "slow_things", "no_such_group")
    gate, importing = threading.Event(), threading.Event()
    shared = ModuleType("slow_things_shared")
    shared.registry, shared.gate, shared.importing = registry, gate, importing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "slow_things_shared", shared)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "slow_things.py").write_text(
        "from slow_things_shared import registry, gate, importing\n"
        "importing.set()\n"
        "gate.wait(20)\n"
        "@registry.register('slow')\n"
        "class Slow: name = ''\n"
    )
    found: list[Any] = []
    importer = threading.Thread(target=lambda: __import__("slow_things"), daemon=True)
    asker = threading.Thread(target=lambda: found.append(registry.names), daemon=True)
    importer.start()
    assert importing.wait(20)
    asker.start()
    threading.Timer(0.2, gate.set).start()  # until then the asker waits for the import
    importer.join(20)
    asker.join(20)
    assert not importer.is_alive()
    assert found == [("slow",)]
    sys.modules.pop("slow_things", None)


def test_many_threads_register_and_ask(empty: Registry[Any]) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for at in range(50):
                name = f"t{number}_{at}"
                empty.register(name)(type("Made", (), {"name": "", "__qualname__": name}))
                assert name in empty
                empty.items()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert errors == []
    assert len(empty) == 200
