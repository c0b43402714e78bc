"""The trials of a search as optuna keeps them: asked for, told, counted; study.journal in a folder.

A trial that was asked for but never told (Ctrl-C, kill) is asked for again with the same values.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from fedtsd.errors import InputError
from fedtsd.score import Score
from fedtsd.search.results import Row
from fedtsd.search.space import Axis
from fedtsd.seeding import derive

JOURNAL = "study.journal"


class Trials:
    """The trials of one search; whoever makes one is `alone_in` the folder.

    seed, startup: of the TPE sampler (Bergstra et al. 2011), whose first trials are random.
    score: what the runs are scored by.
    """

    def __init__(
        self, folder: Path, axes: Sequence[Axis], seed: int, startup: int, score: Score
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._axes = axes
        self._seed = seed
        self._startup = startup
        self._study = optuna.create_study(
            storage=_storage(folder / JOURNAL),
            study_name="search",
            direction="maximize" if score.higher_is_better else "minimize",
            load_if_exists=True,
        )
        for trial in self._study.get_trials(states=[TrialState.RUNNING]):
            self._study.enqueue_trial(trial.params)
            self._study.tell(trial.number, state=TrialState.FAIL)

    def ask(self) -> tuple[Trial, dict[str, str]]:
        """Return the next trial and the texts of its keys."""
        # Made anew from the number of trials that ended: no random state has to be kept.
        seed = derive(self._seed, "search", len(self.rows())) % 2**32
        self._study.sampler = TPESampler(seed=seed, n_startup_trials=self._startup)
        trial = self._study.ask({axis.key: axis.distribution() for axis in self._axes})
        return trial, self._texts(trial.params)

    def finish(self, trial: Trial, scores: Sequence[float], folders: Sequence[str]) -> None:
        """Tell the validation score of each seed and the folders of the runs."""
        trial.set_user_attr("scores", list(scores))
        trial.set_user_attr("folders", list(folders))
        self._study.tell(trial, sum(scores) / len(scores))

    def fail(self, trial: Trial, error: str) -> None:
        """Tell that a run of the trial failed, with one line that says why."""
        trial.set_user_attr("error", error)
        self._study.tell(trial, state=TrialState.FAIL)

    def rows(self) -> list[Row]:
        """Return the trials that ended, numbered from 1 in the order in which they ended."""
        ended = [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state == TrialState.COMPLETE or "error" in trial.user_attrs
        ]
        return [
            Row(
                number,
                self._texts(trial.params),
                _scores(trial),
                tuple(trial.user_attrs.get("folders", ())),
                trial.user_attrs.get("error", ""),
            )
            for number, trial in enumerate(ended, start=1)
        ]

    def importance(self) -> dict[str, float]:
        """Return the share of each key in the spread of scores, by optuna's default measure.

        Empty for one key, or as long as the trials are too few or too alike.
        """
        if len(self._axes) < 2 or len([row for row in self.rows() if not row.error]) < 10:
            return {}
        try:
            found = optuna.importance.get_param_importances(self._study)
        except (ValueError, RuntimeError):  # for instance if all scores are equal
            return {}
        return {key: float(share) for key, share in found.items()}

    def _texts(self, values: dict[str, object]) -> dict[str, str]:
        return {axis.key: axis.text(values[axis.key]) for axis in self._axes}


def _scores(trial: FrozenTrial) -> tuple[float, ...]:
    """One score per seed; older searches have them under another name."""
    told = trial.user_attrs
    return tuple(told.get("scores", told.get("accuracies", ())))


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other searches out of the folder; the system ends this with the process.

    Raises InputError if a search is at work there.
    """
    lock = FileLock(folder / "lock")
    try:
        held = lock.acquire(blocking=False)
    except Timeout as error:
        raise InputError(f"{folder}: another search is at work here") from error
    with held:
        yield


def _storage(path: Path) -> JournalStorage:
    """Open a journal, first mending what a kill may have left: half a line, a lock of nobody's."""
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)
    lock = path.with_name(f"{path.name}.lock")
    lock.unlink(missing_ok=True)
    return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
