"""Folds over series against their twins, on every target, however the history is cut."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_systems_debugger.core.errors import ConfigurationError
from ml_systems_debugger.kernels import (
    EVENT_DTYPE,
    BlockMeans,
    Cusum,
    Ewma,
    RobustBaseline,
    Rolling,
    RunningExtrema,
    available_targets,
    set_num_threads,
    set_target,
)
from ml_systems_debugger.kernels import target as current_target
from ml_systems_debugger.kernels.reference import sequences

FIELDS = [name for name in EVENT_DTYPE.names if name != "series"]


def noise(seed, n, *, phi=0.0, bad=0.02, spikes=0.02):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    for i in range(1, n):
        x[i] += phi * x[i - 1]
    x[rng.random(n) < spikes] *= 30.0
    x[rng.random(n) < bad] = rng.choice([math.nan, math.inf, -math.inf])
    return x


def rows(events):
    return [{name: e[name].item() for name in FIELDS} for e in events]


def assert_events(found, wanted, exact=True):
    assert len(found) == len(wanted)
    for mine, twin in zip(rows(found), wanted, strict=True):
        for name, value in twin.items():
            close = mine[name] == value if exact else mine[name] == pytest.approx(value, rel=1e-9)
            assert close, (name, mine, twin)


BASELINES = [
    RobustBaseline(window=16, batch=4, warmup=6, threshold=3.0),
    RobustBaseline(window=40, batch=7, warmup=3, threshold=2.0, side="above", patience=3),
    RobustBaseline(
        window=32, batch=32, warmup=40, threshold=2.5, side="below", clip=3.0, relearn=5
    ),
    RobustBaseline(window=256, batch=32, threshold=4.0, clip=6.0),
    RobustBaseline(window=9, batch=1, warmup=2, threshold=3.0, logarithm=True),
    RobustBaseline(window=50, batch=10, threshold=3.0, floor=2.0),
]


@pytest.mark.parametrize("fold", BASELINES, ids=range(len(BASELINES)))
def test_baseline_is_its_twin(fold, target):
    x = noise(1, 1500)
    x[700:] += 12.0
    x[900:930] = 3.25  # ties
    z, runs, going = sequences.baseline(x.tolist(), fold)
    state = fold.init()
    found = fold.update(state, x)
    np.testing.assert_array_equal(found.z, z)
    assert len(runs) > 3
    assert_events(found.runs, runs)
    assert len(fold.open_runs(state)) == (going is not None)


def test_baseline_never_holds_the_value_itself():
    fold = RobustBaseline(warmup=32)
    x = np.random.default_rng(0).standard_normal(33)
    x[32] = 1e6
    z = fold.update(fold.init(), x).z
    middle = np.median(x[:32])
    scale = 1.4826022185056018 * np.median(np.abs(x[:32] - middle))
    assert np.isnan(z[:32]).all()
    assert z[32] == pytest.approx((1e6 - middle) / scale, rel=1e-14)


def test_constant_past_makes_everything_else_infinite():
    fold = RobustBaseline(warmup=8, relative=0.0, threshold=5.0)
    state = fold.init()
    found = fold.update(state, np.r_[np.ones(20), 1.5, 0.5, 1.0])
    assert found.z[20:].tolist() == [math.inf, -math.inf, 0.0]
    assert rows(found.runs)[0]["count"] == 2


def test_new_level_is_learnt_after_relearn_values():
    fold = RobustBaseline(warmup=32, clip=6.0, relearn=40, threshold=6.0)
    x = np.random.default_rng(3).standard_normal(400)
    x[200:] += 100.0
    found = fold.update(fold.init(), x)
    assert np.abs(found.z[200:240]).min() > 50
    assert np.abs(found.z[241:]).max() < 10
    assert (found.runs["first"][-1], found.runs["last"][-1]) == (200, 239)


def test_open_run_is_told():
    fold = RobustBaseline(warmup=8, threshold=5.0)
    state = fold.init(2)
    x = np.random.default_rng(0).standard_normal((50, 2))
    x[45:, 1] = 1e3
    assert len(fold.update(state, x).runs) == 0
    (run,) = fold.open_runs(state)
    assert (run["series"], run["first"], run["last"], run["step"]) == (1, 45, 49, -1)


CUSUMS = [
    Cusum(window=32, batch=8, warmup=16, threshold=5.0),
    Cusum(window=64, batch=16, warmup=20, threshold=4.0, max_phi=0.0),
    Cusum(threshold=6.0),
]


@pytest.mark.parametrize("fold", CUSUMS, ids=range(len(CUSUMS)))
@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_cusum_is_its_twin(fold, phi, target):
    x = noise(2, 3000, phi=phi)
    x[1000:] += 8.0
    x[2000:] -= 15.0
    statistic, alarms = sequences.cusum(x.tolist(), fold)
    found = fold.update(fold.init(), x, want_statistic=True)
    np.testing.assert_allclose(found.statistic, statistic, rtol=1e-9)
    assert len(alarms) >= 2
    assert_events(found.alarms, alarms, exact=False)


def test_cusum_finds_onset_and_direction():
    x = np.random.default_rng(5).standard_normal(3000)
    x[2000:] -= 1.5
    fold = Cusum(threshold=10.0)
    alarms = fold.update(fold.init(), x).alarms
    assert alarms["direction"].tolist() == [-1]
    assert abs(int(alarms["first"][0]) - 2000) <= 5
    assert alarms["step"][0] - 2000 < 40


def test_cusum_learns_the_correlation_and_stays_calm():
    rng = np.random.default_rng(7)
    x = np.zeros((4000, 40))
    for i in range(1, 4000):
        x[i] = 0.9 * x[i - 1] + rng.standard_normal(40)
    whitened, raw = Cusum(), Cusum(max_phi=0.0)
    state = whitened.init(40)
    alarms = whitened.update(state, x).alarms
    assert np.abs(whitened.phi(state) - 0.9).max() < 0.1
    assert len(alarms) < 100
    assert len(raw.update(raw.init(40), x).alarms) > 5 * len(alarms)


@pytest.mark.parametrize("alpha", [0.02, 0.5, 1.0])
def test_ewma_is_its_twin(alpha, target):
    x = noise(3, 400) + 1e6
    fold = Ewma(alpha=alpha)
    mean, variance = fold.update(fold.init(), x)
    wanted = sequences.ewma(x.tolist(), alpha)
    np.testing.assert_allclose(mean, wanted[0], rtol=1e-13)
    np.testing.assert_allclose(variance, wanted[1], rtol=1e-7)


def test_ewma_is_that_of_pandas():
    pandas = pytest.importorskip("pandas")
    x = noise(4, 500)
    x[~np.isfinite(x)] = math.nan
    fold = Ewma(span=20)
    mean, variance = fold.update(fold.init(), x)
    peer = pandas.Series(x).ewm(span=20, ignore_na=True)
    np.testing.assert_allclose(mean, peer.mean(), rtol=1e-12)
    np.testing.assert_allclose(variance[2:], peer.var()[2:], rtol=1e-9)


def test_extrema_are_their_twin(target):
    x = noise(5, 600)
    fold = RunningExtrema(alpha=0.2, warmup=5)
    state = fold.init()
    found = fold.update(state, x)
    for mine, twin in zip(found, sequences.extrema(x.tolist(), 0.2, 5), strict=True):
        np.testing.assert_allclose(mine, twin, rtol=1e-11)
    level, step = fold.lowest(state)
    assert level[0] == found.lowest[-1]
    assert found.smoothed[step[0]] == level[0]
    level, step = fold.highest(state)
    assert found.smoothed[step[0]] == level[0] == found.highest[-1]


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 128, 129, 1000, 5000])
def test_block_means_are_their_twin(n, target):
    x = noise(6, n) + 100.0
    fold = BlockMeans()
    state = fold.init()
    fold.update(state, x)
    table = fold.table(state)
    wanted = sequences.block_means(x.tolist())
    assert len(table) == len(wanted) <= 64
    assert fold.nonfinite(state)[0] == np.count_nonzero(~np.isfinite(x))
    for name in table.dtype.names:
        twin = [each[name] for each in wanted]
        np.testing.assert_allclose(table[name], twin, rtol=1e-11, atol=1e-20)


def test_steps_date_what_is_found():
    steps = np.arange(100) * 10 + 7
    x = np.random.default_rng(0).standard_normal(100)
    x[60:63] = 50.0
    fold = RobustBaseline(threshold=10.0)
    (run,) = fold.update(fold.init(), x, steps).runs
    assert (run["first"], run["last"], run["step"]) == (607, 627, 637)
    blocks = BlockMeans()
    state = blocks.init()
    blocks.update(state, x, steps)
    assert blocks.table(state)["first"][0] == 7


def streamed(fold, x, cuts):
    """What `fold` says of x [steps, series] cut at `cuts`, and the state it ends with."""
    state = fold.init(x.shape[1])
    parts = []
    for low, high in zip([0, *cuts], [*cuts, len(x)], strict=True):
        steps = np.arange(low, high)
        if isinstance(fold, (Ewma, Rolling)):
            parts.append(fold.update(state, x[low:high]))
        elif isinstance(fold, Cusum):
            parts.append(fold.update(state, x[low:high], steps, want_statistic=True))
        else:
            parts.append(fold.update(state, x[low:high], steps))
    out = []
    if isinstance(fold, Rolling):
        parts = [tuple(part.values()) for part in parts]
    if parts[0] is not None:
        out = [np.concatenate(each) for each in zip(*parts, strict=True)]
    return out, state


ALL_FOLDS = [
    RobustBaseline(window=24, batch=8, warmup=5, threshold=2.0, clip=4.0, relearn=6),
    Cusum(window=24, batch=8, warmup=10, threshold=3.0),
    Ewma(alpha=0.1),
    RunningExtrema(span=5),
    BlockMeans(),
    Rolling(7, ("mean", "std", "slope", "min", "max", "median")),
    Rolling(16, ("median", "slope", "std", "min"), min_count=3, ddof=1),
]


@pytest.mark.parametrize("fold", ALL_FOLDS, ids=lambda f: type(f).__name__)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_cut_gives_the_same_bits(fold, data):
    n = data.draw(st.integers(1, 300))
    series = data.draw(st.sampled_from([1, 3, 9]))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    x = rng.standard_normal((n, series)) * 10.0 ** rng.integers(-3, 4)
    x = x.round(data.draw(st.integers(0, 3)))  # ties and zeros
    x[rng.random(x.shape) < data.draw(st.sampled_from([0.0, 0.05, 0.5]))] = math.nan
    x[rng.random(x.shape) < data.draw(st.sampled_from([0.0, 0.02]))] = 1e200
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=12)))
    layout = data.draw(st.sampled_from(["C", "F", "strided"]))
    whole, state = streamed(fold, x, [])
    shaped = np.repeat(x, 2, axis=1)[:, ::2] if layout == "strided" else np.asarray(x, order=layout)
    parts, parts_state = streamed(fold, shaped, cuts)
    assert state.tobytes() == parts_state.tobytes()
    for one, other in zip(whole, parts, strict=True):
        assert np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


@pytest.mark.parametrize("fold", ALL_FOLDS, ids=lambda f: type(f).__name__)
def test_targets_and_threads_give_the_same_bits(fold):
    before = current_target()
    x = np.random.default_rng(9).standard_normal((4000, 40))
    found = set()
    try:
        for name in available_targets():
            set_target(name)
            for threads in (1, 2):
                set_num_threads(threads)
                out, state = streamed(fold, x, [])
                found.add((state.tobytes(), *(np.ascontiguousarray(o).tobytes() for o in out)))
    finally:
        set_target(before)
        set_num_threads(0)
    assert len(found) == 1


@pytest.mark.parametrize("fold", ALL_FOLDS, ids=lambda f: type(f).__name__)
def test_nonfinite_leave_no_trace_and_input_is_not_written(fold):
    x = np.random.default_rng(2).standard_normal((200, 2))
    x.flags.writeable = False
    _, state = streamed(fold, x, [])
    again = state.copy()
    fold.update(again, np.full((3, 2), math.nan))
    fold.update(again, np.full((3, 2), -math.inf))
    assert np.isfinite(again[:, :12]).all()
    if not isinstance(fold, (BlockMeans, Rolling)):
        state[:, 1] += 6  # seen
        np.testing.assert_array_equal(again, state)


@pytest.mark.parametrize("fold", ALL_FOLDS, ids=lambda f: type(f).__name__)
def test_wrong_arguments_are_named(fold):
    state = fold.init(2)
    with pytest.raises(ValueError, match=r"state: shape \[3, .* is needed"):
        fold.update(state, np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"values: .* got shape"):
        fold.update(state, np.zeros((5, 2, 1)))
    with pytest.raises(TypeError, match=r"state: float64 is needed, got float32"):
        fold.update(state.astype(np.float32), np.zeros((5, 2)))
    with pytest.raises(ValueError, match="state: a writeable C-contiguous"):
        fold.update(np.asfortranarray(fold.init(4)), np.zeros((5, 4)))
    state[1, 0] = 77.0
    with pytest.raises(ValueError, match=r"state: row 1 is damaged or of another layout"):
        fold.update(state, np.zeros((5, 2)))
    assert len(fold.init(0)) == 0
    fold.update(fold.init(0), np.zeros((5, 0)))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000))
@pytest.mark.parametrize("fold", ALL_FOLDS, ids=lambda f: type(f).__name__)
def test_damaged_states_are_refused_or_survived(fold, seed):
    rng = np.random.default_rng(seed)
    state = fold.init(1)
    fold.update(state, rng.standard_normal((60, 1)))
    where = rng.integers(0, state.shape[1], 5)
    state[0, where] = rng.choice([math.nan, math.inf, -1.0, 1e18, 0.5, 3.0, 60.0], 5)
    try:
        fold.update(state, rng.standard_normal((100, 1)))
    except ValueError as error:
        assert "damaged" in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RobustBaseline(window=1), "window is an int of at least 2, got 1"),
        (lambda: RobustBaseline(window=5000), "window is at most 4096, got 5000"),
        (lambda: RobustBaseline(batch=300), r"batch is at most window \(256\), got 300"),
        (lambda: RobustBaseline(side="left"), "side is one of both, above, below, got 'left'"),
        (lambda: Cusum(clip=0), "clip lies in"),
        (lambda: Cusum(max_phi=1.0), "max_phi lies in"),
        (lambda: Ewma(), "one of alpha and span"),
        (lambda: Ewma(alpha=1.5), "alpha lies in"),
        (lambda: RunningExtrema(span=3, warmup=0), "warmup is an int"),
    ],
)
def test_parameters_that_make_no_sense(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()
