import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.compose import parsed
from fedtsd.errors import ConfigError
from fedtsd.search.space import Choice, Interval, space_of


def axes_of(*overrides: str):
    given_ = parsed(list(overrides))
    fixed = [str(o.input_line) for o in given_ if not o.is_sweep_override()]
    return space_of(fixed, [o for o in given_ if o.is_sweep_override()])[0]


@pytest.mark.parametrize(
    ("override", "axis"),
    [
        ("training.lr=interval(0.01,0.1)", Interval("training.lr", 0.01, 0.1, False, False)),
        ("training.lr=tag(log,interval(0.01,1))", Interval("training.lr", 0.01, 1, True, False)),
        ("training.epochs=interval(1,5)", Interval("training.epochs", 1, 5, False, True)),
        ("training.epochs=range(1,6,2)", Choice("training.epochs", ("1", "3", "5"), True)),
        ("method=fedper,fedavg", Choice("method", ("fedper", "fedavg"), False)),
        ("method=choice(fedper,fedavg)", Choice("method", ("fedper", "fedavg"), False)),
        ("model.hidden=[8],[16,16]", Choice("model.hidden", ("[8]", "[16,16]"), False)),
        # Null by default, so what it holds says nothing: int() does.
        ("cohort.size=int(interval(2,9))", Interval("cohort.size", 2, 9, False, True)),
        ("training.max_grad_norm=interval(1,5)",
         Interval("training.max_grad_norm", 1, 5, False, False)),
    ],
)  # fmt: skip
def test_hydras_sweeps_become_axes(override: str, axis) -> None:
    assert axes_of(override) == [axis]


def test_whole_numbers_are_drawn_for_keys_that_hold_them() -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    drawn = {axis.key: axis.distribution() for axis in axes_of(
        "training.epochs=interval(1,5)", "training.lr=tag(log,interval(0.01,1))",
        "training.batch_size=range(10,40,10)", "method=fedper,fedavg",
    )}  # fmt: skip
    assert drawn == {
        "training.epochs": IntDistribution(1, 5),
        "training.lr": FloatDistribution(0.01, 1, log=True),
        "training.batch_size": IntDistribution(0, 2),  # places in 10, 20, 30
        "method": CategoricalDistribution(("fedper", "fedavg")),
    }


def test_the_size_of_a_space_counts_texts() -> None:
    lr, epochs, method = axes_of(
        "training.lr=interval(0.1,0.2)", "training.epochs=interval(1,5)", "method=fedper,fedavg"
    )
    assert (lr.size, epochs.size, method.size) == (math.inf, 5, 2)


@given(
    st.floats(1e-9, 1e9), st.floats(1e-9, 1e9), st.floats(0, 1), st.booleans()
)  # fmt: skip
def test_what_a_run_is_given_stays_in_the_interval(
    a: float, b: float, place: float, log: bool
) -> None:
    low, high = sorted((a, b))
    if low == high:
        return
    axis = Interval("key", low, high, log, whole=False)
    value = min(max(low + place * (high - low), low), high)
    given_ = float(axis.text(value))
    assert low <= given_ <= high
    assert given_ == pytest.approx(value, rel=5e-4)


def test_four_digits_are_kept() -> None:
    axis = Interval("key", 0.0012345, 0.1, True, whole=False)
    assert axis.text(0.0123456) == "0.01235"
    assert axis.text(0.0012345) == "0.0012345"  # 0.001234 would be below the lower end


ERRORS = [
    (["rounds=3"], "search: there is no key to search over"),
    (["training.lr=interval(0.1,0.01)"], "training.lr: interval(0.1,0.01) must have its lower end"),
    (["training.lr=interval(0,0.1)"], "training.lr: must be above 0 and finite, got 0"),
    (["training.momentum=tag(log,interval(0,0.9))"], "interval(0,0.9) must be above 0 to be"),
    (["training.lr=tag(lgo,interval(0.1,1))"], "training.lr: tag lgo is unknown; legal: log"),
    (["training.epochs=tag(log,range(1,9))"], "training.epochs: tag log is unknown"),
    (["training.epochs=interval(1,2.5)"], "training.epochs: takes whole numbers, interval(1,2.5)"),
    (["training.epochs=range(1,2)"], "training.epochs: needs two values or more"),
    (["training.epochs=shuffle(range(1,5))"], "training.epochs: a search takes no shuffle()"),
    (["method=glob(fed*)"], "method: a search takes no glob()"),
    (["method=choice(fedper)"], "method: needs two values or more"),
    (["method=fedper,fedprx"], "did you mean fedprox?"),
    (["device=interval(0,1)"], "device: must be text, got 0"),
    (["clustering.stage1=interval(0,1)"], "clustering.stage1: must be true or false, got 0"),
    (["model=interval(0,1)"], "model: is chosen by name, not from an interval()"),
    (["training.nesterov=true,false"], "key 'training.nesterov' is unknown"),
    (["seed=0,1"], "seed: cannot be given, search.seeds sets it"),
    (["training.lr=0.1,0.2", "seed=3"], "seed: cannot be given, search.seeds sets it"),
    (["training.lr=0.1,0.2", "resume=x"], "resume: cannot be given"),
    (["training.lr=0.1,0.2", "hydra.run.dir=x"], "hydra.run.dir: cannot be given"),
    (["training.lr=0.1,0.2", "training.lr=0.3"], "training.lr: is given twice"),
    (["training.lr=0.1,0.2", "training.lr=0.3,0.4"], "training.lr: is given twice"),
    (["training.lr=0.1,0.2", "split.val=0"], "split.val: must be above 0"),
    (["split.val=0,0.1"], "split.val: must be above 0"),
    (["training.lr=0.1,0.2", "sed=3"], "key 'sed' is unknown; did you mean seed?"),
    (["training.lr=0.1,0.2", "rounds=0"], "rounds: must be at least 1, got 0"),
    (["training.lr=interval(a,b)"], "interval"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "message"), ERRORS)
def test_wrong_spaces_are_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        axes_of(*overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
