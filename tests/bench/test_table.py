import pytest
from rich.console import Console

from fedtsd.bench.command import as_markdown, tables_of
from fedtsd.bench.table import (
    SPEED,
    SPLIT,
    check_page,
    marks,
    milliseconds,
    print_table,
    speed_rows,
    split_rows,
    write_page,
)
from fedtsd.errors import ConfigError

BEGIN, END = marks("speed")
MACHINE = {
    "gpu": None, "cores": 2, "processor": "P", "peak_flops": 2e11, "torch": "2", "python": "3",
}  # fmt: skip
ROW = {
    "workload": "W1",
    "engine": "parallel:engine.workers=1;precision=bf16",
    "method": "fedtsdp",
    "ratio": {"median": 2.345, "min": 2.1, "max": 2.6},
    "samples_per_second": 12_345.6,
    "rounds_per_second": 0.12345,
    "start_up_seconds": 3.21,
    "first_round_seconds": 9.0,
    "peak_rss_bytes": 1_234_567_890,
    "share_of_peak": 0.456,
    "split": {
        "round": 8.1, "train": 8.0, "cluster": 0.0123, "aggregate": 0.001, "checkpoint": 0.0,
        "write": 0.002, "rest": 0.0847, "evaluate": 1.5,
    },
}  # fmt: skip
CENTRAL = {"workload": "W1", "samples_per_second": 5_264.0, "share_of_peak": 0.31}
RESULTS = {"machine": MACHINE, "central": [CENTRAL], "rows": [ROW]}


def printed(columns, rows, width: int) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        print_table(console, "T", columns, rows)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_speeds_are_shown_under_central() -> None:
    assert speed_rows(RESULTS) == [
        ["W1", "central", "", "5,264", "1.00", "", "", "", "", "31%"],
        ["W1", ROW["engine"], "fedtsdp", "12,346", "2.35", "2.10–2.60", "0.123", "3.2", "1,235",
         "46%"],
    ]  # fmt: skip


def test_stages_are_shown_in_milliseconds() -> None:
    ((*names, round, train, cluster, _, write, rest, evaluate, _),) = split_rows(RESULTS)
    assert names == ["W1", ROW["engine"], "fedtsdp"]
    assert (round, train, cluster, write) == ("8,100", "8,000", "12.3", "2.0")
    assert (rest, evaluate) == ("84.7", "1,500")


@pytest.mark.parametrize(("seconds", "text"), [(0.09944, "99.4"), (0.0995, "100"), (0.0, "0.0")])
def test_short_times_have_a_decimal(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text


def test_a_failed_variant_is_a_row() -> None:
    failed = {"workload": "W1", "engine": "ray", "method": "fedavg", "error": "no ray"}
    cells = speed_rows({**RESULTS, "rows": [failed]})[1]
    assert cells[:4] == ["W1", "ray", "fedavg", "failed"]
    assert len(cells) == len(SPEED)
    assert split_rows({**RESULTS, "rows": [failed]}) == []


@pytest.mark.parametrize("columns", [SPEED, SPLIT])
def test_every_number_is_whole_in_a_hundred_columns(columns) -> None:
    rows = speed_rows(RESULTS) if columns is SPEED else split_rows(RESULTS)
    lines = printed(columns, rows, width=100)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 100
    assert all(cell in text for cell in rows[-1][3:])
    assert "…" not in text
    assert all(column in text for column in columns)
    assert all(part in text for part in ("parallel ", "workers=1", "precision"))


def test_a_workload_is_named_once() -> None:
    lines = printed(SPEED, speed_rows(RESULTS), width=120)
    assert sum(line.split()[:1] == ["W1"] for line in lines) == 1


def test_a_page_gets_the_tables_between_its_marks(tmp_path) -> None:
    page = tmp_path / "page.md"
    other = " ".join(marks("growth"))
    page.write_text(f"before\n{BEGIN}\nold\n{END}\n{other}\n")
    tables = as_markdown(MACHINE, tables_of(RESULTS))
    for _ in range(2):
        check_page(page, "speed")
        write_page(page, "speed", tables)
    assert page.read_text() == f"before\n{BEGIN}\n{tables}{END}\n{other}\n"
    lines = tables.splitlines()
    assert lines[0] == "2 cores of P, 200 GFLOP/s in fp32; torch 2, Python 3."
    widths = {line.count("|") for line in lines if line.startswith("|") and "samples/s" in line}
    assert widths == {len(SPEED) + 1}


@pytest.mark.parametrize("text", ["", f"{END}\n{BEGIN}\n", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_page_without_marks_is_refused(text: str, tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ConfigError, match="must hold the lines"):
        check_page(page, "speed")
