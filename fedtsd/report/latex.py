"""A printed table as LaTeX: pandas writes the booktabs environment, we the words inside it.

The file needs the package booktabs and nothing else; any TeX engine compiles it.
"""

import textwrap

import pandas as pd

from fedtsd.report.printed import Printed

COLUMN_POINTS = 240.0  # a column of a two-column paper
PAGE_POINTS = 345.0  # the text of LaTeX's article on A4, narrower than that of most papers
SIZES = {"small": 9.0, "footnotesize": 8.0, "scriptsize": 7.0}  # points, in a class of 10 points
GLYPH = 0.5  # width of a digit over the font size
GAP = 8.0  # points between columns
HEADER = 12  # letters in a line of a column's head

COMMANDS = {"best": "textbf:--rwrap;", "second": "underline:--rwrap;", "": ""}
GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "λ": "lambda", "μ": "mu", "σ": "sigma", "τ": "tau",
}  # fmt: skip
SIGNS = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{letter: f"$\\{name}$" for letter, name in GREEK.items()},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        "|": r"\textbar{}",
        '"': "''",
        "±": r"$\pm$",
        "×": r"$\times$",
        "°": r"$^\circ$",
        "−": "$-$",
        "∞": r"$\infty$",
        "≥": r"$\geq$",
        "≤": r"$\leq$",
        "†": r"$^\dagger$",
        "–": "--",
        "—": "---",
        "\N{NO-BREAK SPACE}": "~",
        "\n": " ",
    }
)


def escape(text: str) -> str:
    """Write plain text in LaTeX: special signs escaped, Greek letters and ± as mathematics."""
    return text.translate(SIGNS)


def latex(table: Printed) -> str:
    """Write a whole table environment with caption and label `tab:NAME`.

    What fits a column of a two-column paper is a `table`, what does not a `table*`. A table too
    wide for a page is turned if that makes it narrower, and set smaller as far as needed.
    """
    if width(table, "small") > PAGE_POINTS and table.texts.index.is_unique:
        table = min(table, table.turned(), key=lambda one: width(one, "small"))
    fitting = [size for size in SIZES if width(table, size) <= PAGE_POINTS]
    size = fitting[0] if fitting else "scriptsize"
    wide = width(table, size) > COLUMN_POINTS
    frame, commands = _frames(table)
    styler = frame.style.apply(lambda _: commands, axis=None).hide(axis="index")
    styler = styler.set_table_styles(
        [
            {"selector": "smallskip", "props": ":;"},  # article leaves no room below a caption
            {"selector": size, "props": ":;"},
            {"selector": r"setlength{\tabcolsep}", "props": f":{{{GAP / 2:g}pt}};"},
        ]
    )
    return styler.to_latex(
        column_format="l" + "r" * len(table.texts.columns),
        hrules=True,
        environment="table*" if wide else "table",
        position="tbp",
        position_float="centering",
        caption=escape(table.caption),
        label=f"tab:{table.name}",
    )


def width(table: Printed, size: str) -> float:
    """Estimate the width of a table in points, its text set in a size of SIZES."""
    firsts = [table.corner, *(label for label, texts, _ in table.lines() if texts)]
    letters = max(map(len, firsts))
    for name in table.texts.columns:
        cells = [*_wrapped(str(name)), *table.texts[name]]
        letters += max(map(len, cells))
    return letters * GLYPH * SIZES[size] + len(table.texts.columns) * GAP


def _frames(table: Printed) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The LaTeX text of every cell and its command; headings reach over the empty cells beside."""
    lines = table.lines()
    indent = r"\quad " if any(not texts for _, texts, _ in lines) else ""
    empty = [""] * len(table.texts.columns)
    cells: list[list[str]] = []
    commands: list[list[str]] = []
    for label, texts, marks in lines:
        if texts:
            first = indent + escape(label)
        else:
            space = r"\addlinespace " if cells else ""
            first = rf"{space}\rlap{{\textit{{{escape(label)}}}}}"
        cells.append([first, *map(escape, texts or empty)])
        commands.append(["", *(COMMANDS[mark] for mark in marks or empty)])
    columns = [escape(table.corner), *(_header(str(name)) for name in table.texts.columns)]
    return pd.DataFrame(cells, columns=columns), pd.DataFrame(commands, columns=columns)


def _header(name: str) -> str:
    lines = [escape(line) for line in _wrapped(name)]
    stacked = r" \\ ".join(lines)
    return stacked if len(lines) == 1 else rf"\shortstack[r]{{{stacked}}}"


def _wrapped(name: str) -> list[str]:
    """Break a column's head into short lines, never around an equals sign."""
    kept = name.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    return textwrap.wrap(kept, HEADER, break_long_words=False) or [""]
