"""The config of a run as typed values, with every error found before work starts."""

from dataclasses import dataclass
from typing import Any

from fedtsd.aggregation import Aggregation
from fedtsd.clients.engine import EngineSpec
from fedtsd.clustering.policy import Clustering
from fedtsd.data.dataset import Dataset
from fedtsd.data.federation import Shares
from fedtsd.data.partition import Partition
from fedtsd.messages import STAGES
from fedtsd.models import ModelSpec, layers_of
from fedtsd.personalization import Personalization
from fedtsd.schema import convert
from fedtsd.similarity import Similarity
from fedtsd.trackers.tracker import Tracker
from fedtsd.training import Training

DEVICES = ("auto", "cpu", "cuda")


FAMILIES = ("alone", "global", "personalised", "clustered")


@dataclass(frozen=True)
class Method:
    """The name of a composition: a row of the tables, never a branch in the code.

    label: the name as papers write it. family: the block of a table that it stands in.
    """

    name: str
    label: str
    family: str

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family: must be one of {', '.join(FAMILIES)}, got {self.family!r}")


@dataclass(frozen=True)
class Cohort:
    """How many clients take part in a round; null means all."""

    size: int | None


@dataclass(frozen=True)
class DataPlace:
    """Where data sets are kept; null means the user's cache folder, or $FEDTSD_DATA."""

    root: str | None


@dataclass(frozen=True)
class Evaluation:
    """Which stages are evaluated (the last one is served) and what to compare with.

    local_run: the folder of a finished run of method=local on the same clients, or null.
    """

    stages: tuple[str, ...]
    tuning_epochs: int
    local_run: str | None

    def __post_init__(self) -> None:
        if not self.stages or any(stage not in STAGES for stage in self.stages):
            raise ValueError(
                f"stages: must be one or more of {', '.join(STAGES)}, got {list(self.stages)}"
            )
        if self.tuning_epochs < 0:
            raise ValueError(f"tuning_epochs: must be at least 0, got {self.tuning_epochs}")


@dataclass(frozen=True)
class Config:
    """Everything one run is made of."""

    method: Method
    dataset: Dataset
    partition: Partition
    split: Shares
    model: ModelSpec
    clustering: Clustering
    personalization: Personalization
    aggregation: Aggregation
    engine: EngineSpec
    tracker: Tracker
    similarity: Similarity
    training: Training
    evaluation: Evaluation
    cohort: Cohort
    data: DataPlace
    seed: int
    rounds: int
    eval_every: int
    checkpoint_every: int
    device: str
    resume: str | None

    def __post_init__(self) -> None:
        for name in ("rounds", "eval_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed: must be at least 0, got {self.seed}")
        if self.device not in DEVICES:
            raise ValueError(f"device: must be one of {', '.join(DEVICES)}, got {self.device!r}")
        self.tracker.check()
        self._check_together()

    def _check_together(self) -> None:
        """Find contradictions between parts; the model is built once to count its layers."""
        clients, size = self.partition.num_clients, self.cohort.size
        if size is not None and not 1 <= size <= clients:
            raise ValueError(
                f"cohort.size: must be null or 1 to partition.num_clients ({clients}), got {size}"
            )
        facts, public = self.dataset.facts, self.dataset.public_size
        if not 1 <= public < facts.num_samples:
            raise ValueError(
                f"dataset.public_size: must be 1 to {facts.num_samples - 1}, got {public}"
            )
        num_classes = len(facts.classes)
        _under("partition", self.partition.check, facts.num_samples - public, num_classes)
        if self.reads_outputs and self.similarity.public_batch > public:
            raise ValueError(
                f"similarity.public_batch: must be at most dataset.public_size ({public}), "
                f"got {self.similarity.public_batch}"
            )
        model = _under("model", self.model.build, facts.shape, num_classes)
        _under("personalization", self.personalization.check, len(layers_of(model)))

    @property
    def reads_outputs(self) -> bool:
        """Whether any policy needs the clients' outputs on public samples."""
        return self.clustering.uses_outputs or self.personalization.uses_outputs


def parse(composed: Any) -> Config:
    """Turn a composed config (plain containers, interpolations resolved) into a `Config`.

    Raises ConfigError with one line that names the key, the value and what is legal.
    """
    config: Config = convert(composed, Config, "")
    return config


def _under(path: str, check: Any, *args: Any) -> Any:
    """Call a part's own check; its error gets the part's path in front."""
    try:
        return check(*args)
    except ValueError as error:
        raise ValueError(f"{path}.{error}") from error
