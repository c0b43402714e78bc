"""The config of a run as typed values, with every error found before work starts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fedtsd.aggregation import Aggregation
from fedtsd.attack import Attack
from fedtsd.clients.engine import EngineSpec, choose_device
from fedtsd.clients.solvers.solver import Solver
from fedtsd.clustering.policy import Clustering
from fedtsd.coding import Coding
from fedtsd.data.dataset import Dataset, Facts
from fedtsd.data.drift import Drift
from fedtsd.data.federation import Deal, Shares
from fedtsd.data.pool import Partition
from fedtsd.data.public import PublicSource
from fedtsd.data.shift import Shift
from fedtsd.faults import Faults
from fedtsd.messages import HEADED, STAGES
from fedtsd.models import Layer, ModelSpec, layers_of, tensors_of
from fedtsd.personalization import Personalization
from fedtsd.precision import Precision
from fedtsd.prior import NoPrior, Prior
from fedtsd.privacy import Mechanism
from fedtsd.privacy_rules import check_private
from fedtsd.robust import Robust
from fedtsd.schema import convert
from fedtsd.seeding import numpy_rng
from fedtsd.similarity import Similarity
from fedtsd.trackers.tracker import Tracker
from fedtsd.training import Head, Training

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
    """Who takes part in a round.

    size: how many clients; None means all that are there. newcomers: the share of clients that is
    kept out of training until round `join_round`; None means to the end.
    """

    size: int | None
    newcomers: float
    join_round: int | None

    def __post_init__(self) -> None:
        if not 0 <= self.newcomers < 1:
            raise ValueError(f"newcomers: must be in [0, 1), got {self.newcomers}")
        if self.join_round is not None and self.join_round < 2:
            raise ValueError(f"join_round: must be null or at least 2, got {self.join_round}")
        if self.join_round is not None and not self.newcomers:
            raise ValueError(
                f"join_round: {self.join_round} means nothing without newcomers; set "
                "cohort.newcomers to the share of clients that join"
            )

    def choose(self, present: np.ndarray, seed: int, round: int) -> np.ndarray:
        """Return who trains in a round, of the ids of those that are there; sorted."""
        rng = numpy_rng(seed, "cohort", round)
        size = min(self.size or len(present), len(present))
        return np.sort(rng.choice(present, size=size, replace=False))


@dataclass(frozen=True)
class DataPlace:
    """Where data sets are kept; null means the user's cache folder, or $FEDTSD_DATA."""

    root: str | None


@dataclass(frozen=True)
class Evaluation:
    """Which stages are evaluated (the last one is served), on whom, and what to compare with.

    head: how residual heads are fitted, in stages that have one. clients: how many clients are
    evaluated, the same ones in every round; None means all.
    local_run: the folder of a finished run of method=local on the same clients, or null.
    """

    stages: tuple[str, ...]
    tuning_epochs: int
    head: Head
    clients: int | None
    local_run: str | None

    def __post_init__(self) -> None:
        if not self.stages or any(stage not in STAGES for stage in self.stages):
            raise ValueError(
                f"stages: must be one or more of {', '.join(STAGES)}, got {list(self.stages)}"
            )
        if self.tuning_epochs < 0:
            raise ValueError(f"tuning_epochs: must be at least 0, got {self.tuning_epochs}")
        if self.clients is not None and self.clients < 1:
            raise ValueError(f"clients: must be null or at least 1, got {self.clients}")

    def choose(self, clients: np.ndarray, seed: int) -> np.ndarray:
        """Return those of these client ids that are evaluated, sorted: the same in every round."""
        if self.clients is None:
            return clients
        chosen = numpy_rng(seed, "evaluation").choice(clients, self.clients, replace=False)
        return np.sort(chosen)


@dataclass(frozen=True)
class Config:
    """Everything one run is made of."""

    method: Method
    dataset: Dataset
    partition: Partition
    shift: Shift | None
    drift: Drift | None
    attack: Attack | None
    faults: Faults | None
    public: PublicSource
    split: Shares
    model: ModelSpec
    clustering: Clustering
    personalization: Personalization
    aggregation: Aggregation
    robust: Robust | None
    coding: Coding | None
    solver: Solver
    prior: Prior
    engine: EngineSpec
    tracker: Tracker
    similarity: Similarity
    training: Training
    evaluation: Evaluation
    cohort: Cohort
    data: DataPlace
    precision: str
    min_aggregated: int | None
    seed: int
    severity: str
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
        device = choose_device(self.device)
        _under("engine", self.engine.check, device)
        Precision(self.precision).check(device)
        self._check_together()

    def _check_together(self) -> None:
        """Find contradictions between parts; the model is built once to count its layers."""
        facts = self.dataset.facts
        _under("public", self.public.check, self.dataset)
        held_out = self.public.held_out_for(self.dataset)
        if held_out >= facts.num_samples:
            raise ValueError(
                f"dataset.public_size: must be below the {facts.num_samples} samples of the data "
                f"set, got {held_out}"
            )
        if self.dataset.standardise == "public" and held_out < self.public.size_for(self.dataset):
            raise ValueError(
                "dataset.standardise: public needs public samples of the data set itself; with "
                "other public samples take moments (sums that clients send once)"
            )
        _under("partition", self.partition.check, facts, facts.num_samples - held_out)
        if self.shift is not None:
            _under("shift", self.shift.check, facts)
        self._check_clients(facts, facts.num_samples - held_out)
        if self.attack is not None:
            _under("attack", self.attack.check, facts)
        layers = layers_of(self.sketch(), self.personalization.separates)
        _under("personalization", self.personalization.check, layers)
        _under("aggregation", self.aggregation.check, len(layers))
        if self.robust is not None and self.aggregation.sums is None:
            raise ValueError(
                "robust: goes before an aggregation that takes means (mean, momentum, adam, tree), "
                f"and {type(self.aggregation).__name__} takes none"
            )
        num_personal = int(self.personalization.may_keep(layers).sum())
        _under("solver", self.solver.check, self.training, num_personal)
        self._check_partners()
        if self.mechanism is not None:
            check_private(self, self.mechanism, layers)
        if self.coding is not None:
            self._check_coding(facts, layers[-1])
        num_clients = self.partition.clients_of(facts)
        planted = [part.groups_of(num_clients) for part in (self.partition, self.shift) if part]
        has_groups = any(groups is not None for groups in planted)
        _under("clustering", self.clustering.check, num_clients, has_groups)
        if facts.regression and not isinstance(self.prior, NoPrior):
            raise ValueError("prior: needs classes, and the target of this data set is a number")
        if facts.regression and set(HEADED) & set(self.evaluation.stages):
            raise ValueError(
                "evaluation.stages: headed and ensembled need classes, and the target of this data "
                "set is a number"
            )

    def _check_coding(self, facts: Facts, last: Layer) -> None:
        if facts.regression:
            raise ValueError("coding: needs classes, and the target of this data set is a number")
        if self.aggregation.sums is None:
            raise ValueError(
                "coding: goes before an aggregation that takes means (mean, momentum, adam, tree), "
                f"and {type(self.aggregation).__name__} takes none"
            )
        tensors = tensors_of(self.sketch())
        shapes = [tuple(tensors[name].shape) for name in last.tensors]
        if any(shape[:1] != (facts.num_outputs,) for shape in shapes):
            raise ValueError(
                f"coding: needs a model whose last layer has a row for each of the "
                f"{facts.num_outputs} classes; {last.name} has shapes {shapes}"
            )

    def _check_partners(self) -> None:
        """A solver that sends more than a model comes with an aggregation that knows of it."""
        sent, known = self.solver.partner, self.aggregation.partner
        if sent is not None and known != sent:
            raise ValueError(
                f"aggregation._target_: does not know what solver={sent} sends; "
                f"set aggregation={sent}"
            )
        if sent is None and known is not None:
            raise ValueError(
                f"aggregation._target_: needs what only solver={known} sends; "
                f"set solver={known}, or aggregation=mean"
            )

    def _check_clients(self, facts: Facts, num_samples: int) -> None:
        num_clients = self.partition.clients_of(facts)
        present = num_clients - self.deal.num_newcomers(num_clients)
        size, joining = self.cohort.size, self.cohort.join_round
        if size is not None and not 1 <= size <= present:
            raise ValueError(
                f"cohort.size: must be null or 1 to the {present} clients there are, got {size}"
            )
        training = present if size is None else size
        if self.min_aggregated is not None and not 2 <= self.min_aggregated <= training:
            raise ValueError(
                f"min_aggregated: must be null or 2 to the {training} clients of a round, got "
                f"{self.min_aggregated}"
            )
        lying = 0 if self.attack is None else self.attack.num_attackers(num_clients)
        if self.evaluation.clients is not None and self.evaluation.clients > present - lying:
            raise ValueError(
                f"evaluation.clients: must be null or 1 to the {present - lying} clients there are"
                f"{' beside attackers' if lying else ''}, got {self.evaluation.clients}"
            )
        if 0 < present <= lying:
            raise ValueError(f"attack.share: leaves none of {present} clients that is honest")
        if present < 1:
            raise ValueError(f"cohort.newcomers: leaves none of {num_clients} clients to train")
        if self.faults is not None:
            asked = self.faults.asked(size or present)
            if asked > present:
                raise ValueError(
                    f"faults.over_selection: asks {asked} clients for a cohort of "
                    f"{size or present}, and there are {present}; set cohort.size to fewer"
                )
        if joining is not None and joining > self.rounds:
            raise ValueError(f"cohort.join_round: must be at most rounds, got {joining}")
        if self.drift is not None:
            if self.drift.round > self.rounds:
                raise ValueError(f"drift.round: must be at most rounds, got {self.drift.round}")
            extra = self.drift.num_drifting(num_clients)
            try:
                enlarged = self.partition.resized(num_clients + extra)
            except ValueError as error:
                raise ValueError(
                    f"drift: needs clients to whom samples can be dealt; {error}"
                ) from error
            _under("partition", enlarged.check, facts, num_samples)

    def sketch(self) -> nn.Sequential:
        """Return the model without memory for its weights: names and shapes alone.

        Raises ValueError for a model that cannot be.
        """
        facts = self.dataset.facts
        try:
            with torch.device("meta"):
                model: nn.Sequential = _under(
                    "model", self.model.build, facts.shape, facts.num_outputs
                )
        except (RuntimeError, TypeError) as error:  # sizes beyond what torch can count
            raise ValueError(f"model: cannot be built: {str(error).splitlines()[0]}") from error
        return model

    def attackers(self, num_clients: int) -> np.ndarray:
        """Return who lies of N clients, bool [N]; they are in no score."""
        if self.attack is None:
            return np.zeros(num_clients, dtype=bool)
        return self.attack.attackers(num_clients, self.seed)

    @property
    def deal(self) -> Deal:
        """What makes the federation."""
        return Deal(
            self.dataset,
            self.public,
            self.partition,
            self.split,
            self.shift,
            self.drift,
            self.cohort.newcomers,
        )

    @property
    def mechanism(self) -> Mechanism | None:
        """What makes the run differentially private; None if nothing does."""
        for part in (self.aggregation, self.solver):
            if isinstance(part, Mechanism):
                return part
        return None

    @property
    def reads_outputs(self) -> bool:
        """Whether any policy needs the clients' outputs on public samples."""
        policies = self.clustering, self.personalization, self.prior, self.coding
        return any(policy.uses_outputs for policy in policies if policy is not None)


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
