import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from fedtsd.report.latex import PAGE_POINTS, escape, latex, width
from fedtsd.report.printed import Printed
from tests.report.test_printed import table

EVERY_SIGN = r"""a_b 5 % & # $ { } ~ ^ \ < > | " α β γ λ μ σ τ ± × − ∞ ≥ ≤ † – —"""


def wide(columns: int, rows: int = 2, cell: str = "90.1 ± 0.4") -> Printed:
    names = [f"Dirichlet α = {i}, size=5" for i in range(columns)]
    texts = pd.DataFrame([[cell] * columns] * rows, columns=names)
    texts.index = pd.Index([f"method {i}" for i in range(rows)])
    marks = texts.map(lambda _: "")
    return table(texts=texts, marks=marks, groups=("",) * rows, name=f"wide{columns}x{rows}")


def test_signs_are_escaped_once() -> None:
    assert escape("a_b & 5 %") == r"a\_b \& 5 \%"
    assert escape("α = 0.1 ± 2") == r"$\alpha$ = 0.1 $\pm$ 2"
    assert escape("\\{") == r"\textbackslash{}\{"


def test_the_environment_by_hand() -> None:
    assert latex(table()).splitlines() == [
        r"\begin{table}[tbp]",
        r"\centering",
        r"\caption{About 5 \% of a\_b.}",
        r"\smallskip",
        r"\small",
        r"\setlength{\tabcolsep}{4pt}",
        r"\label{tab:t}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"Method & x\textbar{}y & z \\",
        r"\midrule",
        r"\rlap{\textit{One}} &  &  \\",
        r"\quad p & 1 & a\_b \\",
        r"\addlinespace \rlap{\textit{Two}} &  &  \\",
        r"\quad q & \underline{2} & --- \\",
        r"\quad r* & \textbf{3} & c \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_long_heads_are_stacked_and_an_equation_is_kept_together() -> None:
    text = latex(wide(2))
    assert r"\shortstack[r]{Dirichlet \\ $\alpha$~=~0, \\ size=5}" in text


def test_what_does_not_fit_a_column_spans_both() -> None:
    assert r"\begin{table}[" in latex(wide(3))
    assert r"\begin{table*}[" in latex(wide(5))


def test_a_wide_table_is_turned_if_that_helps() -> None:
    text = latex(wide(columns=12, rows=3))
    assert r"\begin{tabular}{lrrr}" in text
    assert r"Dirichlet $\alpha$ = 11, size=5 & 90.1 $\pm$ 0.4" in text


def test_a_table_wide_both_ways_is_set_smaller() -> None:
    page = wide(columns=7, rows=9)
    assert width(page, "small") > PAGE_POINTS
    assert "\\small\n" not in latex(page)
    assert re.search(r"\\(footnotesize|scriptsize)\n", latex(page))


def test_rows_may_have_one_name() -> None:
    texts = pd.DataFrame({"p": ["1", "2"]}, index=["FedAvg", "FedAvg"])
    twice = table(texts=texts, marks=texts.map(lambda _: ""), groups=("a", "b"))
    assert latex(twice).count("FedAvg") == 2


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_pdflatex_compiles_it_all_within_the_margins(tmp_path: Path) -> None:
    some = [EVERY_SIGN[i : i + 8] for i in range(0, len(EVERY_SIGN), 8)]
    signs = pd.DataFrame({some[0]: some}, index=some)
    pages = [
        table(),
        table(texts=signs, marks=signs.map(lambda _: "best"), groups=some, caption=EVERY_SIGN),
        *(wide(columns, rows) for columns, rows in ((3, 2), (5, 3), (12, 3))),
    ]
    for i, page in enumerate(pages):
        (tmp_path / f"t{i}.tex").write_text(latex(page), encoding="utf-8")
    inputs = "".join(rf"\input{{t{i}}}" for i in range(len(pages)))
    document = (
        r"\documentclass[a4paper]{article}\usepackage{booktabs}"
        rf"\begin{{document}}{inputs}\end{{document}}"
    )
    (tmp_path / "all.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout[-2000:]
    assert "Missing character" not in run.stdout
    assert "Overfull" not in run.stdout
