import math

import numpy as np
import pytest

from ml_systems_debugger.kernels import replica_spread
from ml_systems_debugger.kernels.reference import sequences


@pytest.mark.parametrize("replicas", [0, 1, 2, 3, 8, 33, 500])
@pytest.mark.parametrize("bad", [0.0, 0.3])
def test_every_step_is_its_twin(target, replicas, bad):
    rng = np.random.default_rng(replicas)
    x = rng.standard_normal((30, replicas)).round(1)
    x[rng.random(x.shape) < bad] = math.inf
    found = replica_spread(np.asfortranarray(x))
    for row, mine in zip(x.tolist(), found, strict=True):
        twin = sequences.replica_spread(row)
        for field, value in twin.items():
            np.testing.assert_equal(mine[field].item(), value, field)


LAWS = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "rounded": lambda rng, n: rng.standard_normal(n).round(1),
    "far tails": lambda rng, n: rng.standard_cauchy(n) ** 3,
    "two levels": lambda rng, n: rng.choice([1.0, 1e9], n),
    "over all magnitudes": lambda rng, n: 10.0 ** rng.uniform(-300, 140, n),
    "a hole in the middle": lambda rng, n: (
        np.where(rng.random(n) < 0.5, -1, 1) * rng.random(n) ** 9
    ),
    "in order": lambda rng, n: np.arange(n, dtype=float),
    "equal": lambda rng, n: np.full(n, -0.0),
    "not finite": lambda rng, n: np.where(rng.random(n) < 0.01, np.nan, rng.standard_normal(n)),
    "too large": lambda rng, n: np.where(rng.random(n) < 0.01, -1e200, rng.standard_normal(n)),
}


@pytest.mark.parametrize("replicas", [255, 256, 1000, 4096, 4099, 16384])
@pytest.mark.parametrize("law", LAWS)
def test_many_replicas_are_their_twin(target, replicas, law):
    x = LAWS[law](np.random.default_rng(replicas), replicas)
    if law == "too large":
        x[7] = np.inf  # taken for none, though it looks like the largest that is
    (found,) = replica_spread(np.stack([x]))
    for field, value in sequences.replica_spread(x.tolist()).items():
        np.testing.assert_equal(found[field].item(), value, field)


def test_any_strides_and_addresses():
    x = np.random.default_rng(0).standard_normal((40, 600))
    room = np.zeros(x.nbytes + 1, np.uint8)
    odd = room[1:].view(np.float64).reshape(x.shape)
    odd[...] = x
    expected = replica_spread(x)
    for given in (odd, np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], x[::-1][::-1]):
        assert (replica_spread(given) == expected).all()


def test_agreement_and_one_that_parts():
    found = replica_spread([[2.0] * 4, [2.0, 2.0, 3.0, 2.0]])
    assert found["z"].tolist() == [0.0, math.inf]
    assert found["worst"].tolist() == [0, 2]


def test_two_dimensions_are_needed():
    with pytest.raises(ValueError, match=r"values: \[steps, replicas\] is needed"):
        replica_spread([1.0, 2.0])
