import pandas as pd
import pytest

from fedtsd.report.cost import Site, megabytes, simulated_seconds
from fedtsd.report.tables import RunTables
from tests.report.runs import RunBuilder


def test_seconds_of_a_client_by_hand() -> None:
    # 1 MB up at 2 Mbit/s: 4 s; 3 MB down at 8 Mbit/s: 3 s; 0.5 s of work, four times slower: 2 s.
    row = {"bytes_up": [1_000_000], "bytes_down": [3_000_000], "seconds": [0.5]}
    assert Site(2, 8, 4).seconds(pd.DataFrame(row)).tolist() == [9.0]


def test_a_round_lasts_as_long_as_its_slowest_client(tmp_path) -> None:
    tables = RunTables.read(RunBuilder(rounds=2).write(tmp_path / "run"))
    rows = tables.traffic.query("round == 1")
    site = Site(1e9, 1e9, 2)
    assert simulated_seconds(tables, site)[1] == pytest.approx(2 * rows["seconds"].max(), rel=1e-6)
    both = rows["bytes_up"].sum() + rows["bytes_down"].sum()
    assert megabytes(tables)[1] == pytest.approx(both / 1e6)


@pytest.mark.parametrize("field", ["upload", "download", "slowdown"])
def test_settings_are_checked(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}: must be above 0, got 0"):
        Site(**{"upload": 1.0, "download": 1.0, "slowdown": 1.0, field: 0})
