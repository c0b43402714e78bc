"""Progress of one run on stderr: a live bar on a terminal, plain lines otherwise."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from fedtsd.config import Config
from fedtsd.score import Score, score_of_task


class Progress:
    """An observer that shows rounds, scores, clusters, personal layers and the time left."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._console = Console(stderr=True)
        self._bar: Bar | None = None
        self._score = score_of_task(config.dataset.facts.regression)
        self._mean: float | None = None

    def start(self, done: int) -> None:
        """Show an empty bar, or one at `done` rounds."""
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self._config.method.name,
                total=self._config.rounds,
                completed=done,
                facts="starting",
            )

    def stop(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()

    def round(self, row: Mapping[str, Any]) -> None:
        """Show one finished round, given its row of rounds.csv."""
        self._mean = row.get(self._score.mean, self._mean)
        facts = facts_of({**row, self._score.mean: self._mean}, self._score)
        if self._bar is not None:
            self._bar.update(self._task, completed=row["round"], facts=facts)
        else:
            line = f"round {row['round']:>3}/{self._config.rounds}  {facts}"
            sys.stderr.write(f"{line}  {row['seconds']:.1f} s\n")


def facts_of(row: Mapping[str, Any], score: Score) -> str:
    """Return the numbers people watch: the mean score, clusters, personal layers, epsilon."""
    mean = row.get(score.mean)
    shown = f"{score.noun} {'--  ' if mean is None else score.text(mean):>6}"
    clusters, epsilon = row["num_clusters"], row.get("epsilon")
    return (
        f"{shown}  {clusters} cluster{'s' if clusters != 1 else ' '}  "
        f"personal layers {row['personal_layers_mean']:.1f}"
        f"{'' if epsilon is None else f'  epsilon {epsilon:.2f}'}"
    )
