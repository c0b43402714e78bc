import torch

from fedtsd.clients.engine import ClientSide
from fedtsd.clients.sequential import Sequential
from fedtsd.clients.solvers.sgd import Sgd
from fedtsd.messages import ClientRequest, Evaluate, Probe, Request, Train
from fedtsd.models import Mlp, initialise, tensors_of
from fedtsd.precision import Precision
from fedtsd.seeding import torch_rng
from fedtsd.training import Phase, Training

PHASE = Phase("all", 1, 0.0)
HEAD = frozenset({"fc2.weight", "fc2.bias"})


def engine(federation, keeps=HEAD):
    model = Mlp((4,), 0.0).build((2,), 2)
    initialise(model, torch_rng(0, "model"))
    training = Training(1, 1, 10, 0.1, 0.9, 0.0, 0.0, None, (PHASE,))
    cpu = torch.device("cpu")
    side = ClientSide(federation, model, keeps, training, 0, cpu, Precision("fp32"), 3, Sgd())
    initial = {name: tensor.detach().clone() for name, tensor in tensors_of(model).items()}
    return Sequential(1).build(side), initial


def ask(initial, clients, personal=frozenset(), task=None, round=1) -> Request:
    rows = tuple(ClientRequest(client, 0, personal) for client in clients)
    return Request(round, task or Train((PHASE,), None, None), (initial,), rows)


def test_a_client_does_not_depend_on_its_cohort(toy) -> None:
    running, initial = engine(toy(3))
    together = running.handle(ask(initial, [0, 1, 2]))
    running, initial = engine(toy(3))
    alone = running.handle(ask(initial, [2]))
    for name, tensor in alone.rows[0].tensors.items():
        assert torch.equal(tensor, together.rows[2].tensors[name])


def test_personal_layers_stay_and_are_used_again(toy) -> None:
    running, initial = engine(toy(2))
    reply = running.handle(ask(initial, [0], HEAD))
    assert reply.rows[0].tensors.keys() == {"fc1.weight", "fc1.bias"}
    kept = running.state_dict()
    assert kept.keys() == {"client", *HEAD}
    assert kept["client"].tolist() == [0]
    assert not torch.equal(kept["fc2.weight"][0], initial["fc2.weight"])
    # Evaluated with its own head, the client does better than with the initial one.
    look = Evaluate(("personalized",), PHASE)
    own = running.handle(ask(initial, [0], HEAD, look)).rows[0].evaluations
    plain = running.handle(ask(initial, [0], task=look)).rows[0].evaluations
    assert own[0].scores["loss"] < plain[0].scores["loss"]


def test_evaluation_changes_nothing(toy) -> None:
    running, initial = engine(toy(2))
    running.handle(ask(initial, [0, 1], HEAD))
    before = running.state_dict()
    look = Evaluate(("personalized", "tuned"), Phase("all", 3, 0.0))
    first = running.handle(ask(initial, [0, 1], HEAD, look))
    assert running.handle(ask(initial, [0, 1], HEAD, look)) == first
    after = running.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    stages = [e.stage for e in first.rows[0].evaluations]
    assert stages == ["personalized", "personalized", "tuned", "tuned"]


def test_what_was_sent_is_not_changed_in_place(toy) -> None:
    running, initial = engine(toy(1))
    copy = {name: t.clone() for name, t in initial.items()}
    running.handle(ask(initial, [0]))
    assert all(torch.equal(copy[name], initial[name]) for name in copy)


def test_outputs_on_the_public_samples_asked_for(toy) -> None:
    federation = toy(1)
    running, initial = engine(federation)
    chosen = torch.tensor([3, 1], dtype=torch.int32)
    both = running.handle(ask(initial, [0], task=Train((PHASE,), chosen, None))).rows[0].outputs
    running, initial = engine(federation)
    one = running.handle(ask(initial, [0], task=Train((PHASE,), chosen[1:], None))).rows[0].outputs
    assert both.shape == (2, 2)
    assert torch.allclose(both[1:], one)  # another batch size may round differently
    assert torch.allclose(both.sum(dim=1), torch.ones(2))


def test_a_probe_tells_the_loss_of_each_model_and_changes_nothing(toy) -> None:
    running, initial = engine(toy(2))
    reply = running.handle(ask(initial, [1]))
    trained = reply.rows[0].tensors
    row = ClientRequest(1, 0, frozenset())
    probe = running.handle(Request(2, Probe(look=False), (initial, trained), (row,)))
    losses = probe.rows[0].losses
    assert losses[1] < losses[0]  # its own trained model fits it better than the initial one
    look = ask(initial, [1], task=Evaluate(("personalized",), PHASE), round=2)
    again = running.handle(look).rows[0].evaluations
    running, _ = engine(toy(2))
    assert again == running.handle(look).rows[0].evaluations


def test_sums_are_those_of_the_models(toy) -> None:
    running, initial = engine(toy(3))
    each = running.handle(ask(initial, [0, 1, 2], HEAD)).rows
    running, _ = engine(toy(3))
    both = ask(initial, [0, 1, 2], HEAD, Train((PHASE,), None, "samples"))
    reply = running.handle(both)
    assert all(not row.tensors for row in reply.rows)
    (sums,) = reply.sums
    assert sums.tensors.keys() == sums.weights.keys() == {"fc1.weight", "fc1.bias"}
    for name, tensor in sums.tensors.items():
        by_hand = sum(row.num_examples * row.tensors[name].double() for row in each)
        assert torch.allclose(tensor, by_hand, rtol=1e-12)
