import pytest

from fedtsd.progress import facts_of
from fedtsd.score import ACCURACY, MAE

ROW = {"num_clusters": 2, "personal_layers_mean": 1.5}


@pytest.mark.parametrize(
    ("score", "mean", "shown"),
    [
        (ACCURACY, 0.8123, "accuracy  81.2%"),
        (ACCURACY, None, "accuracy   --  "),
        (MAE, 43.21, "MAE   43.2"),
        (MAE, None, "MAE   --  "),
    ],
)
def test_a_line_tells_the_score_clusters_and_personal_layers(score, mean, shown: str) -> None:
    line = facts_of({**ROW, score.mean: mean}, score)
    assert line == f"{shown}  2 clusters  personal layers 1.5"
