from math import inf

import pytest

from fedtsd.report import dealing
from fedtsd.report.page.words import LANGUAGES, read_words

IID = {"_target_": "a.Iid"}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"partition": {"_target_": "a.Dirichlet", "alpha": 0.1}}, "Dirichlet α = 0.1"),
        ({"partition": {"_target_": "a.Dirichlet", "alpha": inf}}, "IID"),
        ({"partition": IID}, "IID"),
        ({"partition": {"_target_": "a.Pathological", "classes_per_client": None}}, "IID"),
        (
            {"partition": {"_target_": "a.Pathological", "classes_per_client": 2}},
            "2 classes per client",
        ),
        (
            {"partition": {"_target_": "a.Pathological", "classes_per_client": 1}},
            "1 class per client",
        ),
        ({"partition": {"_target_": "a.Shards", "shards_per_client": 3}}, "3 shards per client"),
        ({"partition": {"_target_": "a.LabelGroups", "num_groups": 4}}, "4 label groups"),
        (
            {"partition": {"_target_": "a.LabelGroups", "num_groups": 4, "overlap": 0.1}},
            "4 label groups with 10 % shared",
        ),
        ({"partition": {"_target_": "a.LabelGroups", "num_groups": 4, "overlap": 1.0}}, "IID"),
        ({"partition": {"_target_": "a.BySite"}}, "by site"),
        ({"partition": {"_target_": "a.Quantity"}}, "Quantity"),
        ({}, ""),
    ],
)
def test_a_partition_in_words(config: dict[str, object], words: str) -> None:
    assert dealing.partition_label(config) == words


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (None, "IID"),
        ({"_target_": "a.Lognormal", "sigma": 1.2}, "IID labels, log-normal sizes σ = 1.2"),
        ({"_target_": "a.Lognormal", "sigma": 0.0}, "IID"),
        ({"_target_": "a.PowerLaw", "exponent": 2}, "IID labels, power-law sizes with exponent 2"),
        ({"_target_": "a.Equal"}, "IID, equal sizes"),
    ],
)
def test_sizes_in_words(sizes: dict[str, object] | None, words: str) -> None:
    assert dealing.partition_label({"partition": {**IID, "sizes": sizes}}) == words


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (
            {"_target_": "a.Rotation", "degrees": 270.0, "num_groups": 4},
            "rotated up to 270° in 4 groups",
        ),
        ({"_target_": "a.Rotation", "degrees": 90.0, "num_groups": None}, "rotated up to 90°"),
        ({"_target_": "a.LabelNoise", "rate": 0.3, "num_groups": None}, "up to 30 % label noise"),
        ({"_target_": "a.PermutedLabels", "share": 1.0}, "100 % of classes permuted"),
        ({"_target_": "a.Blur", "sigma": 1.5}, "blurred up to σ = 1.5 pixels"),
        ({"_target_": "a.Brightness", "amount": 0.5}, "brightened up to 50 %"),
        ({"_target_": "a.Noise", "std": 0.1}, "noise up to 10 %"),
    ],
)
def test_shifts_in_words(shift: dict[str, object], words: str) -> None:
    config = {"partition": IID, "shift": shift, "drift": None}
    assert dealing.partition_label(config) == f"IID labels, {words}"
    knob = dealing.KINDS[str(shift["_target_"])[2:]].knob
    none = {**config, "shift": {**shift, knob: 0.0}}
    assert dealing.partition_label(none) == "IID"


def test_drift_public_samples_and_newcomers_are_told_last() -> None:
    config = {
        "partition": {"_target_": "a.Dirichlet", "alpha": 0.5},
        "cohort": {"newcomers": 0.2, "join_round": 5},
        "public": {"_target_": "a.OtherDataset", "dataset": {"name": "fashion_mnist"}},
        "drift": {"_target_": "a.NewLaw", "round": 4, "share": 0.25},
    }
    assert dealing.partition_label(config) == (
        "Dirichlet α = 0.5, 25 % of clients drift at round 4, public samples of Fashion-MNIST, "
        "20 % newcomers from round 5"
    )
    held_out = {**config, "public": {"_target_": "a.HeldOut"}, "drift": None}
    held_out["cohort"] = {"newcomers": 0.2, "join_round": None}
    assert dealing.partition_label(held_out) == "Dirichlet α = 0.5, 20 % newcomers"


def test_the_page_has_all_words_in_every_language() -> None:
    for lang in LANGUAGES:
        texts = read_words(lang)
        known = {key.removeprefix("deal.") for key in texts if key.startswith("deal.")}
        assert known == set(dealing.TEXTS)


def test_every_class_has_words_and_every_knob_an_axis() -> None:
    for kind in dealing.KINDS.values():
        assert kind.words in dealing.TEXTS
        assert bool(kind.knob) == bool(kind.axis)
        assert ("{knob}" in dealing.TEXTS[kind.words]) or kind.words in (
            "groups",
            "by_site",
            "equal",
        )
