from __future__ import annotations

import pytest

from ml_systems_debugger.checkpoints._globals import judge_globals
from ml_systems_debugger.core._standins import Global


@pytest.mark.parametrize(
    ("path", "severity"),
    [
        ("collections.OrderedDict", None),
        ("torch._utils._rebuild_tensor_v2", None),
        ("torch.FloatTensor", None),
        ("numpy._core.multiarray.scalar", None),
        ("argparse.Namespace", None),
        ("typing.Any", "medium"),
        ("omegaconf.dictconfig.DictConfig", "medium"),
        ("transformers.training_args.TrainingArguments", "medium"),
        ("functools.partial", "medium"),
        ("my_model.Net", "medium"),
        ("os.system", "critical"),
        ("posix.system", "critical"),
        ("nt.system", "critical"),
        ("builtins.eval", "critical"),
        ("builtins.getattr", "critical"),
        ("__builtin__.exec", "critical"),
        ("subprocess.Popen", "critical"),
        ("importlib.import_module", "critical"),
        ("runpy.run_path", "critical"),
        ("ctypes.CDLL", "critical"),
        ("torch.storage._load_from_bytes", "critical"),
        ("torch.hub.load", "critical"),
        ("torch.load", "critical"),
        ("numpy.load", "critical"),
        ("copyreg extension.7", "critical"),
    ],
)
@pytest.mark.parametrize("called", [False, True])
def test_severity_of_a_global(path: str, severity: str | None, called: bool) -> None:
    module, _, name = path.rpartition(".")
    one = Global(module, name)
    one.called = called
    found = judge_globals([one], "m.pt")
    assert [str(f.severity) for f in found] == ([] if severity is None else [severity])
    if found:
        assert path in found[0].message
        assert ("call" in found[0].message) == called


def test_storages_are_named_and_never_called() -> None:
    one = Global("torch", "FloatStorage")
    assert not judge_globals([one], "m.pt")
    one.called = True
    assert [str(f.severity) for f in judge_globals([one], "m.pt")] == ["medium"]


@pytest.mark.parametrize(
    ("module", "name", "severity"),
    [
        ("torch.distributed.checkpoint.metadata", "os.system", "critical"),
        ("torch.distributed.checkpoint.metadata", "Metadata", None),
        ("torch.distributed.checkpoint.metadata", "os", "medium"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__", "critical"),
        ("torch._utils", "_rebuild_tensir_v2", "medium"),
        ("torch", "os.system", "critical"),
        ("torch", "cuda.FloatStorage", "medium"),
        ("numpy", "f2py.subprocess.Popen", "critical"),
        ("torch.serialization", "os.system", "critical"),
    ],
)
@pytest.mark.parametrize("called", [False, True])
def test_what_a_module_has_imported_is_no_data(
    module: str, name: str, severity: str | None, called: bool
) -> None:
    one = Global(module, name)
    one.called = called
    found = judge_globals([one], "m.pt")
    assert [str(f.severity) for f in found] == ([] if severity is None else [severity])


def test_torch_attributes_are_expected_only_where_they_are_not_called() -> None:
    one = Global("torch", "float32")
    assert judge_globals([one], "m.pt") == []
    one.called = True
    (found,) = judge_globals([one], "m.pt")
    assert found.severity == "medium"


def test_names_are_escaped() -> None:
    (found,) = judge_globals([Global("evil\x1b[2J", "run\n")], "m\x07.pt")
    assert found.message.isprintable()
