"""The table `settings`: how unlike the clients are in each setting, measured, mean over seeds."""

from dataclasses import asdict
from math import isnan

import pandas as pd

from fedtsd.report.measures import num_clients
from fedtsd.report.printed import Printed, number
from fedtsd.report.results import Results, Run
from fedtsd.skew import MEASURES

# Column heads and decimals. Columns in which all settings have nothing are not printed.
HEADS = {
    "label_js": ("label JS", 2),
    "label_emd": ("label EMD", 2),
    "size_gini": ("sizes Gini", 2),
    "size_min": ("samples min", 0),
    "size_max": ("samples max", 0),
    "classes_mean": ("classes per client", 1),
    "input_shift": ("input shift", 2),
    "label_shift": ("label shift", 2),
    "clients": ("clients", 0),
}
ALWAYS = ("label_js", "size_gini", "clients")
CAPTION = (
    "How unlike the clients are, measured on their training data{spread}. Label JS and EMD: "
    "Jensen-Shannon divergence (0 to 1) and sum of absolute differences (0 to 2) between a "
    "client's label law and that of all, mean over clients. Gini of the sizes: 0 where all "
    "clients have equally many samples.{shift}"
)
SHIFT = (
    " Input shift: change of inputs in standard deviations. Label shift: share of labels changed."
)


def setting_table(results: Results) -> pd.DataFrame:
    """One row per setting: each measure of the skew, mean and sample std over seeds, unrounded.

    Columns: setting, severity, seeds, clients, and `NAME`, `NAME_std` for NAME in MEASURES.
    """
    rows = []
    for setting in results.settings:
        # Every method of a seed has the same clients.
        runs = {run.seed: run for run in reversed(results.find(setting=setting))}
        known = pd.DataFrame([asdict(run.full_skew) for run in runs.values()], columns=MEASURES)
        run = next(iter(runs.values()))
        rows.append(
            {
                "setting": setting,
                "severity": run.config.get("severity"),
                "seeds": len(runs),
                "clients": _clients(run),
                **known.mean(),
                **known.std(ddof=1).add_suffix("_std"),
            }
        )
    pairs = [name for measure in MEASURES for name in (measure, f"{measure}_std")]
    return pd.DataFrame(rows, columns=["setting", "severity", "seeds", "clients", *pairs])


def _clients(run: Run) -> int:
    late = run.summary.get("newcomers") or {}
    return num_clients(run.summary) + (
        len(late.get("clients", [])) if late.get("join_round") is None else 0
    )


def printed_settings(table: pd.DataFrame) -> Printed:
    """The table as people read it: mean ± std where seeds differ."""
    shown = [
        name for name in HEADS if name in ALWAYS or bool((table[name].fillna(0).abs() > 0).any())
    ]
    texts = {HEADS[name][0]: [_text(row, name) for _, row in table.iterrows()] for name in shown}
    frame = pd.DataFrame(texts, index=list(table["setting"]))
    seeds = int(table["seeds"].max()) if len(table) else 0
    moved = {"input_shift", "label_shift"} & set(shown)
    return Printed(
        name="settings",
        corner="Setting",
        texts=frame,
        marks=pd.DataFrame("", index=frame.index, columns=frame.columns),
        groups=("",) * len(frame),
        caption=CAPTION.format(
            spread=f", mean ± sample standard deviation over {seeds} seeds" if seeds > 1 else "",
            shift=SHIFT if moved else "",
        ),
    )


def _text(row: "pd.Series[float]", name: str) -> str:
    spec = f".{HEADS[name][1]}f"
    spread = row.get(f"{name}_std", float("nan"))
    visible = not isnan(spread) and float(format(spread, spec)) > 0
    return number(row[name], spec) + (f" ± {format(spread, spec)}" if visible else "")
