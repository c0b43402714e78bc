import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.report.cost import Site
from fedtsd.report.page.costs import calculator_rounds, cost_rows, forecast
from fedtsd.report.results import Results
from fedtsd.report.tables import RunTables
from tests.report.page.conftest import SITE

Get = Callable[[str], Results]
COLUMNS = ["round", "client", "bytes_up", "bytes_down", "samples", "seconds"]


@pytest.fixture(scope="module")
def tables(results: Get) -> RunTables:
    return results("one").runs[0].tables


def with_traffic(tables: RunTables, rows: list[tuple[float, ...]]) -> RunTables:
    return dataclasses.replace(tables, traffic=pd.DataFrame(rows, columns=COLUMNS))


def test_a_forecast_by_hand(tables: RunTables) -> None:
    # Round 1: 1 MB up at 8 Mbit/s is 1 s, and 2 x 0.5 s of work; client 1 takes 0.2 s.
    # Round 2: 2 MB down at 16 Mbit/s is 1 s, and 2 x 2 s of work.
    rows = [(1, 0, 10**6, 0, 1, 0.5), (1, 1, 0, 0, 1, 0.1), (2, 0, 0, 2 * 10**6, 1, 2.0)]
    changed = with_traffic(tables, rows)
    found = forecast(changed, Site(8, 16, 2), 4)  # two rounds more, like round 2
    assert found is not None
    assert found.total_seconds == pytest.approx(2 + 5 + 5 + 5)
    assert found.round_seconds == pytest.approx(17 / 4)
    assert found.total_bytes == pytest.approx(10**6 + 3 * 2 * 10**6)
    assert found.site_round_bytes == pytest.approx(7 * 10**6 / (2 + 1 + 1 + 1))
    short = forecast(changed, Site(8, 16, 2), 1)
    assert short is not None
    assert short.total_seconds == pytest.approx(2)


def test_without_traffic_there_is_no_forecast(results: Get) -> None:
    old = results("old")
    assert forecast(old.runs[0].tables, SITE, 5) is None
    assert {row.round_seconds for row in cost_rows(old, "fedavg", SITE)} == {None}


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 50), st.floats(0, 5)), min_size=1, max_size=12
    ),
    st.tuples(*[st.floats(0.01, 100)] * 3),
)
def test_the_calculator_drops_no_site_that_could_be_the_slowest(
    sites: list[tuple[int, int, float]], line: tuple[float, float, float]
) -> None:
    site = Site(*line)
    rows = [(1, i, up, down, 1, seconds) for i, (up, down, seconds) in enumerate(sites)]
    traffic = pd.DataFrame(rows, columns=COLUMNS)
    kept = calculator_rounds_of(traffic)[0]
    worth = pd.DataFrame(kept["sites"], columns=["bytes_up", "bytes_down", "seconds"])
    assert site.seconds(worth).max() == pytest.approx(site.seconds(traffic).max())
    assert len(worth) <= len(sites)
    assert kept["bytes"] == sum(up + down for up, down, _ in sites)
    assert kept["count"] == len(sites)


def calculator_rounds_of(traffic: pd.DataFrame) -> list[dict[str, object]]:
    class Tables:
        pass

    tables = Tables()
    tables.traffic = traffic  # type: ignore[attr-defined]
    return calculator_rounds(tables)  # type: ignore[arg-type]


def test_costs_are_means_over_seeds_and_compared_with_one_common_model(results: Get) -> None:
    sweep = results("sweep")
    rows = {(row.setting, row.method): row for row in cost_rows(sweep, "fedavg", SITE)}
    assert len(rows) == 9
    own, common = rows["Dirichlet α = 1", "fedtsdp"], rows["Dirichlet α = 1", "fedavg"]
    table = sweep.table.query("setting == 'Dirichlet α = 1' and method == 'fedtsdp'")
    total = float((table["bytes_up"] + table["bytes_down"]).mean())
    assert own.bytes_total == pytest.approx(total)
    assert own.bytes_per_site_round == pytest.approx(total / (8 * 12))
    assert own.ratio == pytest.approx(total / common.bytes_total)
    runs = sweep.find("fedtsdp", "Dirichlet α = 1")
    seconds = [run.tables.traffic["seconds"].sum() for run in runs]
    assert own.train_seconds == pytest.approx(np.mean(seconds))
    assert rows["Dirichlet α = 1", "local"].bytes_total == 0
