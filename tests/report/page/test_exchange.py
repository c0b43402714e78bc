import dataclasses
from collections.abc import Callable

import pandas as pd
import pytest

from fedtsd.report.page.exchange import Span, exchange
from fedtsd.report.results import Results
from fedtsd.report.tables import RunTables
from fedtsd.traffic import SENT_LOSSES, SENT_NOISE, SENT_SUMS

Get = Callable[[str], Results]


@pytest.fixture(scope="module")
def tables(results: Get) -> RunTables:
    return results("one").runs[0].tables  # 20 sites, 6 rounds, fc3 personal after round 4


def test_who_sent_which_layer_when(tables: RunTables) -> None:
    found = exchange(tables)
    assert found is not None
    layers = {item.name: item for item in found.layers}
    assert layers["fc1"].spans == (Span(1, 6, 20),)
    assert layers["fc3"].spans == (Span(1, 4, 20), Span(5, 6, 0))
    assert (layers["fc3"].kept_by, layers["fc3"].kept_from) == (20, 5)
    assert layers["fc3"].bytes_up == sum(
        int(4 * 850 * 20 * share) for share in (0.99, 0.01) for _ in range(4)
    )
    assert [item.name for item in found.stopped] == ["fc3"]
    assert found.has_outputs


def test_all_bytes_of_the_records_are_shown(tables: RunTables) -> None:
    found = exchange(tables)
    assert found is not None
    for direction, name in (("up", "bytes_up"), ("down", "bytes_down")):
        records = tables.exchanged[tables.exchanged["direction"] == direction]
        assert sum(getattr(item, name) for item in found.items) == records["num_bytes"].sum()


def test_a_layer_that_is_shared_again_is_kept_since_the_last_time_only(tables: RunTables) -> None:
    item = ("fc3.weight", "fc3.bias")
    rows = tables.exchanged
    back = rows[(rows["round"] == 1) & rows["item"].isin(item)]
    changed = pd.concat([rows, back.assign(round=5, num_clients=20)])
    found = exchange(dataclasses.replace(tables, exchanged=changed))
    assert found is not None
    assert found.stopped[0].kept_from == 6


def test_what_is_neither_layer_nor_output_is_pointed_out(tables: RunTables) -> None:
    odd = pd.DataFrame([(1, "up", "raw data", 1, 10)], columns=list(tables.exchanged.columns))
    changed = pd.concat([tables.exchanged, odd])
    found = exchange(dataclasses.replace(tables, exchanged=changed))
    assert found is not None
    assert found.unknown == ("raw data",)


def test_what_crosses_once_or_when_sites_join_is_known(tables: RunTables) -> None:
    rows = [
        (0, "up", SENT_SUMS, 20, 480),
        (0, "down", SENT_SUMS, 20, 320),
        (4, "up", SENT_LOSSES, 3, 24),
        (4, "up", SENT_NOISE, 20, 80),
    ]
    more = pd.DataFrame(rows, columns=list(tables.exchanged.columns))
    found = exchange(dataclasses.replace(tables, exchanged=pd.concat([tables.exchanged, more])))
    assert found is not None
    assert found.unknown == ()
    items = {item.name: item for item in found.items}
    assert items["sums"].spans == (Span(0, 0, 20),)
    assert (items["sums"].bytes_up, items["sums"].bytes_down) == (480, 320)
    assert items["losses"].spans == (Span(4, 4, 3),)
    assert items["noise"].spans == (Span(4, 4, 20),)


def test_without_the_list_of_layers_names_of_tensors_tell_them(tables: RunTables) -> None:
    found = exchange(dataclasses.replace(tables, model=()))
    assert found is not None
    assert [item.name for item in found.layers] == ["conv1", "conv2", "fc1", "fc2", "fc3"]
    assert {item.parameters for item in found.layers} == {None}
    assert found.unknown == ()


def test_old_runs_have_no_records_and_local_ones_are_empty(results: Get) -> None:
    assert exchange(results("old").find("fedtsdp")[0].tables) is None
    found = exchange(results("alone").runs[0].tables)
    assert found is not None
    assert (found.num_records, found.bytes_up, found.has_outputs) == (0, 0, False)
