"""The vocabulary: what a raw name means, and that two columns never become one series."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_systems_debugger.core import canonical, resolve
from ml_systems_debugger.core.names import ALIASES, HELD_OUT, SPLITS, qualified


@pytest.mark.parametrize(
    ("raw", "name", "split", "layer"),
    [
        ("loss", "loss", None, None),
        ("train/loss", "loss", "train", None),
        ("Loss/train", "loss", "train", None),
        ("validation/loss", "loss", "val", None),
        ("eval_loss", "loss", "eval", None),
        ("val_loss", "loss", "val", None),
        ("dev_acc", "accuracy", "dev", None),
        ("eval_wikitext_loss", "loss", "eval_wikitext", None),
        ("lm loss", "loss", None, None),
        ("grad-norm", "grad_norm", None, None),
        ("Learning Rate", "lr", None, None),
        ("optim/lr", "lr", None, None),
        ("grad_norm/encoder.0.weight", "grad_norm", None, "encoder.0.weight"),
        ("encoder.0.weight/grad_norm", "grad_norm", None, "encoder.0.weight"),
        ("gradients/layer1/kernel", "gradient", None, "layer1/kernel"),
        ("train_loss_step", "loss", "train", None),
        ("train_loss_epoch", "loss", "train", None),
        ("train_epoch_perplexity", "perplexity", "train", None),
        ("epoch_loss", "loss", None, None),
        ("train/global_step", "step", None, None),
        ("_step", "step", None, None),
        ("batch_time", "step_time", None, None),
        ("rank", "replica_id", None, None),
        ("metrics/train/loss", "loss", "train", None),
        ("train_losses", "loss", "train", None),
    ],
)
def test_known_names(raw: str, name: str, split: str | None, layer: str | None) -> None:
    assert canonical(raw) == (name, split, layer, True)


@pytest.mark.parametrize(
    "raw",
    ["my_metric", "train_time", "val_step", "epoch_time", "time_epoch", "a/b/c", "/", "x/", ""],
)
def test_unknown_names_pass_untouched(raw: str) -> None:
    assert canonical(raw) == (raw, None, None, False)


def test_the_split_of_an_unknown_quantity_is_kept() -> None:
    assert canonical("validation/num_examples") == ("num_examples", "val", None, False)


def test_no_alias_belongs_to_two_quantities() -> None:
    seen: dict[str, str] = {}
    for name, aliases in ALIASES.items():
        for alias in (name, *aliases):
            assert seen.setdefault(alias, name) == name, alias
            assert alias == alias.lower()


def test_held_out_splits() -> None:
    assert "train" not in HELD_OUT
    assert {"val", "eval", "test", "dev"} <= HELD_OUT <= SPLITS


def test_an_exact_canonical_name_wins_over_an_alias() -> None:
    found = resolve(["learning_rate", "lr"])
    assert found["lr"].name == "lr"
    assert found["learning_rate"].name == "learning_rate"


def test_a_value_per_step_wins_over_a_mean_per_epoch() -> None:
    found = resolve(["train_loss_epoch", "train_loss_step"])
    assert found["train_loss_step"][:2] == ("loss", "train")
    assert found["train_loss_epoch"][:2] == ("train_loss_epoch", None)


def test_loss_per_step_and_per_evaluation_stay_two() -> None:
    found = resolve(["loss", "train/loss", "validation/loss"])
    assert [found[raw].split for raw in found] == [None, "train", "val"]


_NAMES = st.one_of(
    st.sampled_from([alias for name, more in ALIASES.items() for alias in (name, *more)]),
    st.text(alphabet="abltrainvoses_/-. 01", min_size=1, max_size=16),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["train", "val", "eval", "Loss", "grad_norm", "layer.0"]),
        st.sampled_from(["/", "_"]),
        st.sampled_from(["loss", "accuracy", "lr", "step", "train", "time"]),
    ),
)


@given(st.lists(_NAMES, max_size=12))
def test_two_columns_never_become_one_series(names: list[str]) -> None:
    found = resolve(names)
    assert list(found) == list(dict.fromkeys(names))
    assert len({parts[:3] for parts in found.values()}) == len(found)


@given(st.sampled_from(sorted(ALIASES)), st.sampled_from([None, "val", "eval"]))
def test_the_written_form_means_the_same(name: str, split: str | None) -> None:
    written = canonical(qualified(name, split))
    assert written.name == name or (split is not None and not written.known)
