"""Pickles are read and never run, by whoever reads them."""

from __future__ import annotations

import os
import pickle
import random
from pathlib import PurePosixPath
from typing import Any

import pytest

from ml_systems_debugger.core import SchemaError
from ml_systems_debugger.core._standins import hashable
from ml_systems_debugger.core.pickles import Instance, Persistent, read_pickle

PLAIN = {
    "text": "é\n",
    "numbers": [0, -1, 2**40, -(2**70), 0.5, float("inf"), True, None],
    "nested": {"a": (1, (2, 3)), "b": [], 7: b"\0\xff"},
}


class Harmful:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_of_every_protocol(protocol):
    found, named = read_pickle(pickle.dumps(PLAIN, protocol), "a.pkl", 0, 100_000)
    if protocol < 3:  # bytes are a call of a codec there
        assert isinstance(found["nested"].pop(7), Instance)
        assert [one.path for one in named] == ["_codecs.encode"]
        assert found == {**PLAIN, "nested": {"a": (1, (2, 3)), "b": []}}
    else:
        assert (found, named) == (PLAIN, [])


def test_what_a_loader_would_call_is_named_and_not_called(tmp_path):
    target = tmp_path / "made"
    found, named = read_pickle(pickle.dumps(Harmful(str(target))), "a.pkl", 0, 100_000)
    assert not target.exists()
    assert isinstance(found, Instance)
    assert [one.name for one in named] == ["mkdir"]


def test_damage_and_want_of_measure_are_named():
    data = pickle.dumps(PLAIN)
    with pytest.raises(SchemaError, match="cut off"):
        read_pickle(data[:-3], "a.pkl", 0, 100_000)
    with pytest.raises(SchemaError, match="followed by further bytes"):
        read_pickle(data + b"x", "a.pkl", 0, 100_000)
    with pytest.raises(SchemaError, match=r"no UTF-8.*xff"):
        read_pickle(data.replace(b"a", b"\xff"), "a.pkl", 0, 100_000)
    with pytest.raises(SchemaError, match="far more memory"):
        read_pickle(data, "a.pkl", 0, 100)


def test_mutated_pickles_raise_nothing_but_our_errors():
    rng = random.Random(0)
    data = pickle.dumps(PLAIN)
    refused = 0
    for _ in range(2000):
        broken = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        try:
            read_pickle(bytes(broken), "a.pkl", 0, 100_000)
        except SchemaError:
            refused += 1
    assert refused > 500


def test_references_are_read_only_where_something_is_beside_the_pickle():
    data = b"\x80\x02K\x01Q."
    with pytest.raises(SchemaError, match="refers to what lies outside"):
        read_pickle(data, "m.pkl", 0, 1000)
    root, _ = read_pickle(data, "m.pkl", 0, 1000, references=[])
    assert isinstance(root, Persistent)


@pytest.mark.parametrize("data", [b"ctorch\nrebuild\x97\n.", b"ctor\xff\nSize\n."])
def test_a_name_that_is_no_text_is_refused(data):
    with pytest.raises(SchemaError, match="a name that is no UTF-8"):
        read_pickle(data, "m.pkl", 0, 1000)


def test_a_path_of_what_is_no_text_is_refused():
    good = pickle.dumps(PurePosixPath("/a/b"))
    root, _ = read_pickle(good, "m.pkl", 0, 10_000)
    assert root.args == PurePosixPath("/a/b").__reduce__()[1]  # parts, or as one text from 3.12 on
    bad = good.replace(b"\x8c\x01a", b")0)").replace(b"\x8c\x04/a/b", b")0)0K\x01")
    assert bad != good
    with pytest.raises(SchemaError, match="a path of what is no text"):
        read_pickle(bad, "m.pkl", 0, 10_000)


@pytest.mark.parametrize(
    "key",
    [b"]", b"}", b"(K\x01](K\x02et",
     b"ctorch.distributed.checkpoint.metadata\nBytesStorageMetadata\n)\x81"],
    ids=["list", "dict", "tuple of a list", "data class"],
)  # fmt: skip
def test_a_key_that_no_dict_can_hold_is_refused(key):
    with pytest.raises(SchemaError, match="a key that has no hash"):
        read_pickle(b"\x80\x02}" + key + b"K\x01s.", "m.pkl", 0, 10_000)


@pytest.mark.parametrize("protocol", [2, 4])
def test_keys_of_other_kinds_are_kept(protocol):
    deep: tuple[Any, ...] = ("a",)
    wide: tuple[Any, ...] = ("a",)
    for _ in range(3):
        deep = (deep,)
    for _ in range(15):
        wide = (wide, wide)
    data = {(1, (2, "a")): 1, frozenset({3}): 2, PurePosixPath("/a"): 3, deep: 4}
    root, _ = read_pickle(pickle.dumps(data, protocol), "m.pkl", 0, 10_000)
    assert list(root.values()) == [1, 2, 3, 4]
    assert {(1, (2, "a")), deep} <= root.keys()
    root, _ = read_pickle(pickle.dumps({wide: 1}, protocol), "m.pkl", 0, 10_000)
    assert [type(key) for key in root] == [Instance]


@pytest.mark.parametrize(
    "call",
    [b"ctorch\nSize\nK\x07\x85R", b"ctorch\nSize\nU\x01a\x85\x85R", b"cbuiltins\ntuple\nN\x85R",
     b"cbuiltins\nset\n]](K\x01e\x86R", b"cbuiltins\nlist\ncbuiltins\nlist\n\x85R",
     b"cbuiltins\nset\n](]e\x85R", b"cbuiltins\nfrozenset\n](]e\x85R",
     b"cbuiltins\ndict\nK\x05\x85R", b"cbuiltins\ndict\n](K\x05e\x85R",
     b"cbuiltins\ndict\n](U\x03abce\x85R", b"cbuiltins\ndict\n]]\x86R",
     b"ccollections\nOrderedDict\n](]K\x01\x86e\x85R",
     b"ccollections\ndefaultdict\nK\x01\x85R", b"ccollections\nCounter\n](]e\x85R"],
    ids=["size of a number", "size of text", "tuple of None", "set of two", "list of a class",
         "set of a list", "frozen set of a list", "dict of a number", "dict of numbers",
         "dict of two lists", "dict of two", "key of a list", "default of a number",
         "counts of a list"],
)  # fmt: skip
def test_a_container_of_what_it_cannot_be_built_of_is_refused(call):
    with pytest.raises(SchemaError, match="what it cannot be built of"):
        read_pickle(b"\x80\x02" + call + b".", "m.pkl", 0, 10_000)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"\x8f(]\x90", "a set of what has no hash"), (b"(]\x91", "a set of what has no hash"),
     (b"](K\x01\x90", "adds to what is no set"), (b"\x8f(K\x01e", "appends to what is no list"),
     (b"\x8fK\x01a", "appends to what is no list")],
)  # fmt: skip
def test_sets_hold_what_has_a_hash_and_are_no_lists(data, reason):
    with pytest.raises(SchemaError, match=reason):
        read_pickle(b"\x80\x04" + data + b".", "m.pkl", 0, 10_000)


@pytest.mark.parametrize(
    ("step", "reason"),
    [(b"K\x01a", "appends to what is no list"), (b"(K\x01e", "appends to what is no list"),
     (b"K\x00K\x01s", "sets an item of what is no dict"), (b"(K\x01\x90", "adds to what is no set"),
     (b")b", "another state")],
)  # fmt: skip
def test_a_tensor_is_as_it_was_built(step, reason):
    with pytest.raises(SchemaError, match=reason):
        read_pickle(b"\x80\x04ctorch._utils\n_rebuild_tensor_v2\n)R" + step + b".", "m", 0, 10_000)
    read_pickle(b"\x80\x04cmine\nBag\n)R" + step + b".", "m", 0, 10_000)


def test_a_key_that_is_used_many_times_over_is_looked_at_once():
    looks = []

    class Wide(tuple):
        __slots__ = ()

        def __iter__(self):
            looks.append(len(self))
            return super().__iter__()

    key, known = Wide(range(2000)), {}
    assert hashable([key, (key, key)], known)
    assert hashable([key], known)
    assert looks == [2000]
    assert not hashable([Wide(([],))], known)


def test_containers_are_built_of_what_they_are_built_of():
    for call, made in [
        (b"ccollections\nCounter\n}U\x01aK\x02s\x85R", {"a": 2}),
        (b"ccollections\nCounter\nN\x85R", {}),
        (b"ccollections\nCounter\n](K\x01K\x01e\x85R", {}),
        (b"ccollections\nOrderedDict\n](U\x02abU\x01cK\x01\x86e\x85R", {"a": "b", "c": 1}),
        (b"ccollections\ndefaultdict\ncbuiltins\nlist\n}U\x01aK\x02s\x86R", {"a": 2}),
        (b"ctorch\nSize\n)R", ()),
        (b"ctorch\nSize\n(K\x02K\x03t\x85R", (2, 3)),
        (b"cbuiltins\nset\n](K\x02U\x01ae\x85R", [2, "a"]),
    ]:
        root, _ = read_pickle(b"\x80\x02" + call + b".", "m.pkl", 0, 10_000)
        assert root == made


def test_what_lies_below_a_mark_is_out_of_reach():
    """As in a loader, whose stack is empty behind a mark."""
    with pytest.raises(SchemaError, match="takes from an empty stack"):
        read_pickle(b"\x80\x02}(K\x01K\x02s.", "m.pkl", 0, 10_000)


def test_a_tensor_is_not_called():
    made = b"ctorch._utils\n_rebuild_tensor_v2\n)R"
    with pytest.raises(SchemaError, match="calls what cannot be called"):
        read_pickle(b"\x80\x02" + made + b")R.", "m.pkl", 0, 10_000)


@pytest.mark.parametrize("given", [b"}", b"]", b"N"], ids=["dict", "list", "None"])
def test_arguments_are_a_tuple(given):
    with pytest.raises(SchemaError, match="arguments that are no tuple"):
        read_pickle(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + given + b"R.", "m", 0, 10_000)


def test_a_key_that_holds_itself_many_times_over_takes_no_time():
    """Sixteen levels of sixteen each are 10**19 parts, of a file of some hundred bytes."""
    key: tuple[Any, ...] = ("a",)
    for _ in range(16):
        key = (key,) * 16
    data = b"\x80\x02}" + pickle.dumps(key, 2)[2:-1] + b"K\x01s."
    root, _ = read_pickle(data, "m.pkl", 0, 100_000)
    assert [type(one) for one in root] == [Instance]
