import pytest

from fedtsd.bench.scaling import (
    COLUMNS,
    COMMON,
    METHODS,
    ROUND_COLUMNS,
    SETTINGS,
    growth_rows,
    late_rows,
)
from fedtsd.compose import check, composed

SPLIT = {"cluster": 0.01}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"{s.axis}-{s.value}")
def test_settings_are_what_they_say(setting) -> None:
    overrides = [*COMMON, *setting.overrides]
    cfg = check(composed([*overrides, "method=fedtsdp", "engine=sequential"]))
    model = cfg.model.build(cfg.dataset.facts.shape, cfg.dataset.facts.num_outputs)
    num_parameters = sum(p.numel() for p in model.parameters())
    value = {"clients": setting.num_clients, "parameters": num_parameters}[setting.axis]
    assert setting.value == f"{value:,}"
    assert (cfg.cohort.size, cfg.partition.num_clients) == (None, setting.num_clients)


def test_growth_is_shown_by_round_and_by_client() -> None:
    costs = {
        "fedavg": {"seconds": 2.0, "peak_rss_bytes": 5e8, "split": SPLIT},
        "fedtsdp": {"seconds": 2.2, "peak_rss_bytes": 6e8, "split": SPLIT},
    }
    row = {"axis": "clients", "value": "100", "num_clients": 100, "hidden": 200, **costs}
    row |= {"more": {"median": 0.1}, "server_share": 0.005}
    (cells,) = growth_rows({"rows": [row]})
    fedavg, fedtsdp = ["2,000", "20.0", "500"], ["2,200", "22.0", "600"]
    assert cells == ["clients", "100", *fedavg, *fedtsdp, "+10%", "0.5%"]
    assert len(cells) == len(COLUMNS)


def test_late_rounds_are_compared_with_early_ones() -> None:
    early = {"seconds": {"median": 0.5}, "rss_bytes": 4e8}
    late = {"seconds": {"median": 0.55}, "rss_bytes": 4.1e8}
    (cells,) = late_rows({"rounds": [{"method": METHODS[0], "early": early, "late": late}]})
    assert cells == ["fedavg", "500", "550", "1.10", "400", "410"]
    assert len(cells) == len(ROUND_COLUMNS)
