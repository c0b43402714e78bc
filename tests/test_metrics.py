import pandas as pd
import pytest

from fedtsd.metrics import Spread, best_validation_round, scores_at, spread


def test_spread() -> None:
    assert spread([0.0, 0.5, 1.0]) == Spread(0.5, pytest.approx((1 / 6) ** 0.5), 0.0)
    # 20 clients: the worst tenth are two, with mean .05
    assert spread([0.1, 0.0, *[0.9] * 18]).worst10 == 0.05
    # 11 clients: ceil(1.1) = 2
    assert spread([0.2, 0.4, *[1.0] * 9]).worst10 == pytest.approx(0.3)


def table(rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["round", "client", "stage", "split", "accuracy"])


ROWS = table(
    [
        (1, 0, "personalized", "val", 0.5),
        (1, 1, "personalized", "val", 0.7),
        (2, 0, "personalized", "val", 0.9),
        (2, 1, "personalized", "val", 0.3),
        (3, 0, "personalized", "val", 0.4),
        (3, 0, "tuned", "val", 1.0),
        (3, 0, "personalized", "test", 0.95),
        (3, 1, "personalized", "test", 0.85),
        (1, 0, "personalized", "test", 0.1),
    ]
)


def test_best_round_is_chosen_on_validation_the_first_of_equals() -> None:
    assert best_validation_round(ROWS, "personalized") == 1  # .6, .6, .4; test would say 3
    assert best_validation_round(ROWS, "tuned") == 3
    assert best_validation_round(table([]), "tuned") is None


def test_accuracy_per_client() -> None:
    assert scores_at(ROWS, "personalized", 3).to_dict() == {0: 0.95, 1: 0.85}
