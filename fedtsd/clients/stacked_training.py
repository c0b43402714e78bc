"""Local training of many clients side by side, phase by phase.

Shapes: C clients side by side.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from fedtsd.clients.dropout import Masks
from fedtsd.clients.stacked_batches import Batches, Schedule
from fedtsd.clients.stacked_graphs import Graphs, Take
from fedtsd.clients.stacked_models import Stack
from fedtsd.clients.stacked_step import Plan, Step
from fedtsd.data.holdings import Split
from fedtsd.modules import Dropout
from fedtsd.precision import Precision
from fedtsd.training import Phase, Training


class StackTrainer:
    """Trains the models of a stack in place, as `local.train` trains one.

    Clients with most samples come first: as they finish from behind, the stack shrinks. Batches of
    unequal size are filled up, with weight 0. Where that would change the result, as batch
    normalisation reads all samples of a batch, clients are instead grouped by the size of their
    batch at each step.
    """

    def __init__(
        self,
        stack: Stack,
        model: nn.Module,
        training: Training,
        precision: Precision,
        device: torch.device,
        graphs: Callable[[Take], Graphs] | None,
    ) -> None:
        """graphs: makes what takes steps from recordings instead, if they are to be recorded."""
        self._stack = stack
        self._model = model
        self._training = training
        self._device = device
        self._grouped = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
        self._drops = any(isinstance(m, Dropout) for m in model.modules())
        self._step = Step(model, training, precision, device)
        self._graphs = graphs(self._step) if graphs and not self._grouped else None

    def train(
        self,
        splits: Sequence[Split],
        phases: Sequence[Phase],
        personal: Sequence[frozenset[str]],
        rngs: Sequence[torch.Generator],
    ) -> list[int]:
        """Train the first C models of the stack; return the samples that each has processed."""
        masks = [Masks(self._model, rng) for rng in rngs] if self._drops else None
        if any(phase.proximal for phase in phases):
            self._stack.remember()
        sizes = [len(split) for split in splits]
        processed = [0] * len(splits)
        for phase in phases:
            moves = self._moves(phase, personal)
            epochs = [phase.epochs * any(column) for column in zip(*moves.values(), strict=True)]
            schedule = Schedule(sizes, epochs, self._training.batch_size, rngs)
            if not schedule.num_steps:
                continue
            self._stack.begin(moves, bool(self._training.momentum))
            moving = tuple(name for name, column in moves.items() if any(column))
            mixed = len({tuple(moves[name]) for name in moving}) > 1
            plan = Plan(moving, phase.proximal, mixed, still=False)
            self._run(schedule, Batches(splits, schedule, masks), plan)
            processed = [p + n * e for p, n, e in zip(processed, sizes, epochs, strict=True)]
        return processed

    def _moves(self, phase: Phase, personal: Sequence[frozenset[str]]) -> dict[str, list[bool]]:
        """Return whether the phase moves a parameter on each client, by name [C]."""
        return {
            name: [phase.moves(name, own) for own in personal] for name in self._stack.parameters
        }

    def _run(self, schedule: Schedule, batches: Batches, plan: Plan) -> None:
        for step in range(schedule.num_steps):
            if self._grouped:
                self._step_in_groups(step, batches, plan)
            else:
                self._step_together(step, schedule, batches, plan)

    def _step_together(self, step: int, schedule: Schedule, batches: Batches, plan: Plan) -> None:
        count = schedule.still(step)
        if self._graphs is not None:
            count = min(self._graphs.size_for(count), schedule.num_clients)
        batch = batches.at(step, slice(0, count), schedule.width)
        rows = self._stack.rows.first(count)
        if self._graphs is not None:
            self._graphs(rows, batch, replace(plan, still=True))
        else:
            self._step(rows, batch, replace(plan, still=not schedule.all_train(step, count)))

    def _step_in_groups(self, step: int, batches: Batches, plan: Plan) -> None:
        groups = defaultdict[int, list[int]](list)
        for client, size in enumerate(batches.sizes_at(step)):
            groups[size].append(client)
        groups.pop(0, None)
        for size, clients in groups.items():
            chosen = torch.tensor(clients)
            batch = batches.at(step, chosen, size)
            if clients == list(range(len(clients))):
                self._step(self._stack.rows.first(len(clients)), batch, plan)
                continue
            places = chosen.to(self._device)
            rows = self._stack.rows.chosen(places)
            self._step(rows, batch, plan)
            self._stack.rows.put(places, rows)
