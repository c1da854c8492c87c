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


def test_agreement_and_one_that_parts():
    found = replica_spread([[2.0] * 4, [2.0, 2.0, 3.0, 2.0]])
    assert found["z"].tolist() == [0.0, math.inf]
    assert found["worst"].tolist() == [0, 2]


def test_two_dimensions_are_needed():
    with pytest.raises(ValueError, match=r"values: \[steps, replicas\] is needed"):
        replica_spread([1.0, 2.0])
