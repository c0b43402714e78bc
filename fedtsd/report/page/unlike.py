"""How unlike the sites are, in sentences and as rows of a table."""

from dataclasses import dataclass

from fedtsd.report.page.words import Say, say
from fedtsd.report.results import Results, Run
from fedtsd.report.setting_table import setting_table
from fedtsd.report.skew import LEAST
from fedtsd.skew import MEASURES

# From which mean JS divergence on the sites' mixes differ how much. By experience with image sets:
# Dirichlet alpha 1 gives about 0.1, alpha 0.1 about 0.4, two of ten classes per site about 0.6.
DEGREES = ((0.3, "strong"), (0.1, "clear"), (0.02, "some"), (0.0, "none"))


def unlike(run: Run) -> list[Say]:
    """Say how far the sites' mixes of classes, numbers of samples and views of them differ."""
    skew = run.full_skew
    if not skew.label_js >= 0:
        return []
    degree = next(name for least, name in DEGREES if skew.label_js >= least)
    said = [
        say(
            "sites.unlike.labels",
            degree=say(f"sites.unlike.degree.{degree}"),
            js=skew.label_js,
        )
    ]
    classes = len(run.tables.class_names)
    if skew.classes_mean < classes - LEAST:
        said.append(say("sites.unlike.classes", mean=round(skew.classes_mean, 1), of=classes))
    if skew.size_max > skew.size_min:
        said.append(say("sites.unlike.sizes", low=skew.size_min, high=skew.size_max))
    elif skew.size_max == skew.size_min:
        said.append(say("sites.unlike.equal", low=skew.size_min))
    if skew.input_shift >= LEAST:
        said.append(say("sites.unlike.inputs", shift=skew.input_shift))
    if skew.label_shift >= LEAST:
        said.append(say("sites.unlike.wrong", share=round(100 * skew.label_shift, 1)))
    return said


@dataclass(frozen=True)
class UnlikeRow:
    """The measured skew of a setting, mean over seeds; `values` by measure, see `Skew`."""

    setting: str
    values: dict[str, float]
    runs: int


def unlike_rows(results: Results) -> list[UnlikeRow]:
    """Return one row per setting, the least skewed first."""
    table = setting_table(results)
    rows = table[list(MEASURES)].to_numpy(float).tolist()
    return [
        UnlikeRow(
            setting, dict(zip(MEASURES, row, strict=True)), len(results.find(setting=setting))
        )
        for setting, row in zip(table["setting"], rows, strict=True)
    ]
