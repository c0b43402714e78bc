"""On a fake that records and replays as a GPU does: from the same memory."""

import contextlib

import pytest

from fedtsd.clients.stacked_batches import Batches, Schedule
from fedtsd.clients.stacked_graphs import WARM_UPS, Graphs
from fedtsd.clients.stacked_models import Stack
from fedtsd.clients.stacked_step import Plan
from fedtsd.clients.stacked_training import StackTrainer
from fedtsd.messages import ClientRequest
from fedtsd.models import Mlp
from fedtsd.seeding import torch_rng
from fedtsd.sums import summing_order
from fedtsd.training import Phase
from tests.clients.stacks import ALL, CPU, assert_close, federation, initial_of, settings, side


class FakeCuda:
    """Records the calls of a step instead of its kernels; a recording computes nothing."""

    def __init__(self) -> None:
        self.recording = None
        self.log = []

    def Stream(self):  # noqa: N802  the name in torch.cuda
        return FakeStream()

    def current_stream(self):
        return FakeStream()

    def stream(self, stream):
        return contextlib.nullcontext()

    def graph_pool_handle(self):
        return "pool"

    def CUDAGraph(self):  # noqa: N802  the name in torch.cuda
        return FakeGraph(self)

    @contextlib.contextmanager
    def graph(self, graph, pool):
        assert pool == "pool"
        self.recording = graph
        yield
        self.recording = None


class FakeStream:
    def wait_stream(self, other) -> None:
        return None


class FakeGraph:
    def __init__(self, cuda) -> None:
        self.cuda = cuda
        self.call = None

    def replay(self) -> None:
        step, arguments = self.call
        self.cuda.log.append(("replay", shape_of(*arguments)))
        step(*arguments)


def shape_of(rows, batch, plan) -> tuple[int, int]:
    return tuple(batch.weights.shape)


def recorded(step, cuda):
    """A step that on recording is kept with the very tensors that it was given."""

    def take(rows, batch, plan) -> None:
        if cuda.recording is not None:
            cuda.recording.call = step, (rows, batch, plan)
            cuda.log.append(("record", shape_of(rows, batch, plan)))
            return
        cuda.log.append(("step", shape_of(rows, batch, plan)))
        step(rows, batch, plan)

    return take


def trained(ours, cuda, rounds=2, phases=ALL):
    """Return the stack's tensors after training everybody, with graphs if there is a `cuda`."""
    order = summing_order([len(c.train) for c in ours.federation.clients])
    splits = [ours.federation.clients[i].train for i in order]
    stack = Stack(ours.model, len(order), CPU)
    graphs = cuda and (lambda step: Graphs(recorded(step, cuda), len(order), cuda))
    trainer = StackTrainer(stack, ours.model, ours.training, ours.precision, CPU, graphs)
    rows = [ClientRequest(i, 0, frozenset()) for i in order]
    stack.lay_out({n: t[None] for n, t in initial_of(ours).items()}, rows, [{}] * len(rows))
    for round in range(rounds):
        rngs = [torch_rng(0, "train", round, i) for i in order]
        trainer.train(splits, phases, [frozenset()] * len(order), rngs)
    return stack.rows.tensors


@pytest.mark.parametrize("spec", [Mlp((6,), 0.0), Mlp((6,), 0.4)])
def test_replayed_steps_give_the_same_numbers(spec) -> None:
    training = settings(batch_size=2, momentum=0.9, weight_decay=0.1, max_grad_norm=1.0)
    # Nineteen clients: sizes go down by three, so that some stand still at the end of the stack.
    ours = side(federation(sizes=range(1, 20)), spec, training)
    cuda = FakeCuda()
    phases = (Phase("all", 2, 0.1), Phase("all", 1, 0.0))
    assert_close(trained(ours, None, phases=phases), trained(ours, cuda, phases=phases))
    assert {kind for kind, _ in cuda.log} == {"step", "record", "replay"}
    assert {count for _, (count, _) in cuda.log} == {3, 6, 9, 12, 15, 18, 19}


def test_a_shape_is_recorded_once_after_some_real_steps() -> None:
    ours = side(federation(sizes=(8, 8, 4)), training=settings(batch_size=2))
    cuda = FakeCuda()
    trained(ours, cuda, rounds=3)
    # Three clients for 2 steps, then two for 2 more, in each of 3 rounds.
    for count in (3, 2):
        kinds = [kind for kind, shape in cuda.log if shape == (count, 2)]
        expected = ["step"] * WARM_UPS + ["record"] + ["replay"] * (6 - WARM_UPS)
        assert kinds == expected
    assert {shape for _, shape in cuda.log} == {(3, 2), (2, 2)}


def test_stacks_shrink_in_eight_sizes() -> None:
    graphs = Graphs(lambda *arguments: None, 100, FakeCuda())
    assert [graphs.size_for(n) for n in (1, 13, 14, 91, 92, 100)] == [13, 13, 26, 91, 100, 100]
    assert len({graphs.size_for(n) for n in range(1, 101)}) == 8
    small = Graphs(lambda *arguments: None, 3, FakeCuda())
    assert [small.size_for(n) for n in (1, 2, 3)] == [1, 2, 3]


def test_plans_have_graphs_of_their_own() -> None:
    cuda = FakeCuda()
    seen = []
    graphs = Graphs(recorded(lambda rows, batch, plan: seen.append(plan.proximal), cuda), 2, cuda)
    ours = side(federation(sizes=(2, 2)), training=settings(batch_size=2))
    splits = [c.train for c in ours.federation.clients]
    schedule = Schedule([2, 2], [1, 1], 2, None)
    for _ in range(WARM_UPS + 1):
        for proximal in (0.0, 0.5):
            batch = Batches(splits, schedule, None).at(0, slice(0, 2), schedule.width)
            graphs(
                Stack(ours.model, 2, CPU).rows, batch, Plan(("fc1.weight",), proximal, False, True)
            )
    assert seen == [0.0, 0.5] * (WARM_UPS + 1)
    assert [kind for kind, _ in cuda.log].count("record") == 2
