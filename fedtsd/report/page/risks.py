"""What could make the numbers of the page mislead, or hurt a site, and what to do about each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fedtsd.errors import RunFolderError
from fedtsd.report.page.answer import Verdict, shown_run, test_samples
from fedtsd.report.page.grouping import grouping
from fedtsd.report.page.names import Names
from fedtsd.report.page.words import Say, say
from fedtsd.report.results import Hole, Run
from fedtsd.report.tables import read_mapping
from fedtsd.score import Score

FEW_TEST_SAMPLES = 30
FEW_SEEDS = 3


@dataclass(frozen=True)
class Risk:
    """A kind of risk (`losing`, `holes`, ...), what was seen, where, and what to do."""

    kind: str
    seen: Say
    setting: str | None = None

    @property
    def action(self) -> Say:
        """What to do about it."""
        return say(f"risks.{self.kind}.do")


KINDS = (
    "losing", "unstable", "coding", "holes", "unfinished", "few_samples", "few_seeds", "rising",
    "falling",
)  # fmt: skip


def risks(names: Names, answers: list[Verdict]) -> list[Risk]:
    """Return every risk seen, in the order of KINDS."""
    found = [*_holes(names.results.holes), *_few_seeds(answers)]
    for answer in answers:
        run = shown_run(names.results, names.roles, answer.setting)
        found += [
            *_losing(answer, run),
            *_unstable(run),
            *_coding(run),
            *_unfinished(run),
            *_few_samples(run),
            *_drift(names, run),
        ]
    return sorted(found, key=lambda risk: KINDS.index(risk.kind))


def _losing(answer: Verdict, run: Run) -> Iterator[Risk]:
    if answer.alone is None or answer.alone.losing.empty:
        return
    rows = answer.alone.losing
    # A site's number means the same site within one seed only.
    sites = sorted(int(client) for client in rows.loc[rows["seed"] == run.seed, "client"])
    worst = float(rows["gain"].min())
    seen = say(
        "risks.losing.seen",
        sites=sites,
        n=len(rows),
        of=len(answer.alone.rows),
        worst=worst,
        seed=run.seed,
    )
    yield Risk("losing", seen, answer.setting)


def _unstable(run: Run) -> Iterator[Risk]:
    if moves := grouping(run.tables).late_moves:
        yield Risk("unstable", say("risks.unstable.seen", n=moves), run.setting)


def _coding(run: Run) -> Iterator[Risk]:
    codings, last = run.tables.codings, run.tables.rounds["round"].max()
    if codings is None:
        return
    clusters = run.tables.final_clusters
    for (cluster, like), rows in codings[codings["round"] == last].groupby(["cluster", "like"]):
        here, there = (sorted(clusters.index[clusters == c].tolist()) for c in (cluster, like))
        moved = int((rows["class"] != rows["name"]).sum())
        seen = say("risks.coding.seen", sites=here, others=there, n=moved, of=len(rows))
        yield Risk("coding", seen, run.setting)


def _holes(holes: tuple[Hole, ...]) -> Iterator[Risk]:
    for hole in holes:
        error = (hole.error or "").strip().splitlines()
        done, planned = _progress(hole)
        yield Risk(
            "holes",
            say(
                "risks.holes.error" if error else "risks.holes.seen",
                folder=hole.folder.name,
                state=say(f"risks.state.{hole.state if hole.state in STATES else 'other'}"),
                done=done,
                planned=planned,
                error=error[-1] if error else "",
            ),
        )


STATES = ("missing", "failed", "running")


def _progress(hole: Hole) -> tuple[int, Any]:
    """Rounds that a run without a result has done, and how many were planned ("?" if unknown)."""
    try:
        config: Mapping[str, Any] = read_mapping(hole.folder / "config.yaml", optional=True)
    except RunFolderError:
        config = {}
    table = hole.folder / "rounds.csv"
    lines = table.read_text(encoding="utf-8").splitlines() if table.is_file() else []
    return max(len(lines) - 1, 0), config.get("rounds", "?")


def _unfinished(run: Run) -> Iterator[Risk]:
    # A run that its privacy budget has ended is whole.
    planned = (run.tables.summary.get("privacy") or {}).get("rounds", run.config.get("rounds"))
    done = int(run.tables.rounds["round"].max()) if len(run.tables.rounds) else 0
    if isinstance(planned, int) and done < planned:
        seen = say("risks.unfinished.seen", done=done, planned=planned)
        yield Risk("unfinished", seen, run.setting)


def _few_samples(run: Run) -> Iterator[Risk]:
    tests = test_samples(run)
    few = tests[tests < FEW_TEST_SAMPLES]
    if len(few):
        sites = sorted(int(client) for client in few.index)
        # Two standard errors of a share of 1/2, where a binomial share is widest.
        width = 1 / float(few.min()) ** 0.5
        seen = say(
            "risks.few_samples.seen",
            sites=sites, n=len(sites), least=int(few.min()), limit=FEW_TEST_SAMPLES, width=width,
        )  # fmt: skip
        yield Risk("few_samples", seen, run.setting)


def _few_seeds(answers: list[Verdict]) -> Iterator[Risk]:
    fewest = min(len(answer.seeds) for answer in answers)
    if fewest < FEW_SEEDS:
        yield Risk("few_seeds", say("risks.few_seeds.seen", n=fewest, limit=FEW_SEEDS))


def _drift(names: Names, run: Run) -> Iterator[Risk]:
    rounds = run.tables.rounds
    move = late_change(rounds, run.score)
    if move is not None and abs(move) > run.score.hundredth(rounds["score_mean"].mean()):
        kind = "rising" if move > 0 else "falling"
        seen = say(f"risks.{kind}.seen", method=names.method(run.method), move=move)
        yield Risk(kind, seen, run.setting)


def late_change(rounds: pd.DataFrame, score: Score) -> float | None:
    """By how much the last three evaluated rounds are better than the three before, on average."""
    values = rounds.sort_values("round")["score_mean"].dropna().to_numpy(float)
    if len(values) < 6:
        return None
    return float(score.gain(values[-3:].mean(), values[-6:-3].mean()))
