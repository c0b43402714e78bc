import torch

from fedtsd.clients.engine import ClientSide, ClientStore
from fedtsd.clients.sequential import Sequential
from fedtsd.messages import ClientRequest, Evaluate, Probe, Request, Train
from fedtsd.models import Mlp, initialise
from fedtsd.seeding import torch_rng
from fedtsd.training import Phase, Training

PHASE = Phase("all", 1, 0.0)
HEAD = frozenset({"fc2.weight", "fc2.bias"})


def engine(federation, keeps=HEAD):
    model = Mlp((4,)).build((2,), 2)
    initialise(model, torch_rng(0, "model"))
    training = Training(1, 10, 0.1, 0.9, 0.0, 0.0, None, (PHASE,))
    side = ClientSide(federation, model, keeps, training, 0, torch.device("cpu"))
    initial = {name: p.detach().clone() for name, p in model.named_parameters()}
    return Sequential(1).build(side), initial


def rows(initial, clients, personal=frozenset()):
    shared = {name: t for name, t in initial.items() if name not in personal}
    return tuple(ClientRequest(client, shared, personal) for client in clients)


def test_a_client_does_not_depend_on_its_cohort(toy) -> None:
    running, initial = engine(toy(3))
    together = running.handle(Request(1, Train((PHASE,), None), rows(initial, [0, 1, 2])))
    running, initial = engine(toy(3))
    alone = running.handle(Request(1, Train((PHASE,), None), rows(initial, [2])))
    for name, tensor in alone.rows[0].tensors.items():
        assert torch.equal(tensor, together.rows[2].tensors[name])


def test_personal_layers_stay_and_are_used_again(toy) -> None:
    running, initial = engine(toy(2))
    reply = running.handle(Request(1, Train((PHASE,), None), rows(initial, [0], HEAD)))
    assert reply.rows[0].tensors.keys() == {"fc1.weight", "fc1.bias"}
    kept = running.state_dict()[0]
    assert kept.keys() == HEAD
    assert not torch.equal(kept["fc2.weight"], initial["fc2.weight"])
    # Evaluated with its own head, the client does better than with the initial one.
    ask = Evaluate(("personalized",), PHASE)
    own = running.handle(Request(1, ask, rows(initial, [0], HEAD))).rows[0].evaluations
    plain = running.handle(Request(1, ask, rows(initial, [0]))).rows[0].evaluations
    assert own[0].scores["loss"] < plain[0].scores["loss"]


def test_evaluation_changes_nothing(toy) -> None:
    running, initial = engine(toy(2))
    running.handle(Request(1, Train((PHASE,), None), rows(initial, [0, 1], HEAD)))
    before = running.state_dict()
    ask = Evaluate(("personalized", "tuned"), Phase("all", 3, 0.0))
    first = running.handle(Request(1, ask, rows(initial, [0, 1], HEAD)))
    assert running.handle(Request(1, ask, rows(initial, [0, 1], HEAD))) == first
    after = running.state_dict()
    assert all(torch.equal(before[c][n], after[c][n]) for c in before for n in before[c])
    stages = [e.stage for e in first.rows[0].evaluations]
    assert stages == ["personalized", "personalized", "tuned", "tuned"]


def test_what_was_sent_is_not_changed_in_place(toy) -> None:
    running, initial = engine(toy(1))
    copy = {name: t.clone() for name, t in initial.items()}
    running.handle(Request(1, Train((PHASE,), None), rows(initial, [0])))
    assert all(torch.equal(copy[name], initial[name]) for name in copy)


def test_outputs_on_the_public_samples_asked_for(toy) -> None:
    federation = toy(1)
    running, initial = engine(federation)
    chosen = torch.tensor([3, 1], dtype=torch.int32)
    both = running.handle(Request(1, Train((PHASE,), chosen), rows(initial, [0]))).rows[0].outputs
    running, initial = engine(federation)
    one = (
        running.handle(Request(1, Train((PHASE,), chosen[1:]), rows(initial, [0]))).rows[0].outputs
    )
    assert both.shape == (2, 2)
    assert torch.allclose(both[1:], one)  # another batch size may round differently
    assert torch.allclose(both.sum(dim=1), torch.ones(2))


def test_a_new_client_keeps_the_initial_model() -> None:
    store = ClientStore({"head": torch.ones(2), "body": torch.zeros(2)}, frozenset({"head"}))
    assert store.get(5)["head"].tolist() == [1.0, 1.0]
    assert store.state_dict() == {}
    store.put(5, {"head": torch.tensor([3.0]), "body": torch.tensor([4.0])})
    saved = store.state_dict()
    store.put(5, {"head": torch.tensor([9.0]), "body": torch.tensor([4.0])})
    assert saved[5]["head"].tolist() == [3.0]  # a snapshot stays what it was
    store.load_state_dict(saved)
    assert store.get(5).keys() == {"head"}
    assert store.get(5)["head"].tolist() == [3.0]


def test_a_probe_tells_the_loss_of_each_model_and_changes_nothing(toy) -> None:
    running, initial = engine(toy(2))
    reply = running.handle(Request(1, Train((PHASE,), None), rows(initial, [1])))
    trained = reply.rows[0].tensors
    empty = ClientRequest(1, {}, frozenset())
    probe = running.handle(Request(2, Probe((initial, trained), look=False), (empty,)))
    losses = probe.rows[0].losses
    assert losses[1] < losses[0]  # its own trained model fits it better than the initial one
    ask = Evaluate(("personalized",), PHASE)
    again = running.handle(Request(2, ask, rows(initial, [1]))).rows[0].evaluations
    running, _ = engine(toy(2))
    assert again == running.handle(Request(2, ask, rows(initial, [1]))).rows[0].evaluations
