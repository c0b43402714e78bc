"""A client's local work and a weighted mean, naively: for references written from the papers."""

import numpy as np
import torch

from fedtsd.clients.local import batches
from fedtsd.data.federation import ClientData, Federation, Split
from fedtsd.seeding import torch_rng


def unequal(federation: Federation, sizes: tuple[int, ...]) -> Federation:
    """Let client i keep only the first sizes[i] of its training samples."""
    clients = tuple(
        ClientData(Split(data.train.inputs[:n], data.train.labels[:n]), data.val, data.test)
        for data, n in zip(federation.clients, sizes, strict=True)
    )
    return Federation(clients, federation.public, federation.classes)


def network(cfg, federation: Federation, weights: dict):
    model = cfg.model.build(federation.input_shape, federation.num_outputs)
    model.load_state_dict({name: tensor.clone() for name, tensor in weights.items()})
    return model


def loss_on(cfg, federation: Federation, client: int, weights: dict) -> float:
    """Mean cross-entropy of a model on a client's training samples."""
    split = federation.clients[client].train
    with torch.no_grad():
        logits = network(cfg, federation, weights)(split.inputs)
    chosen = torch.log_softmax(logits, dim=1)[range(len(split)), split.labels]
    return -chosen.mean().item()


def trained(cfg, federation: Federation, client: int, round: int, weights: dict) -> dict:
    """SGD with momentum on a client's samples, in the batches of the engines."""
    model, split = network(cfg, federation, weights), federation.clients[client].train
    velocity = [torch.zeros_like(p) for p in model.parameters()]
    rng = torch_rng(cfg.seed, "train", round, client)
    for _ in range(cfg.training.epochs):
        for inputs, labels in batches(split, cfg.training.batch_size, rng):
            loss = torch.nn.functional.cross_entropy(model(inputs), labels)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for p, v, g in zip(model.parameters(), velocity, gradients, strict=True):
                    v.mul_(cfg.training.momentum).add_(g)
                    p.sub_(cfg.training.lr * v)
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def mean_of(models: list[dict], weights: list[int]) -> dict:
    total = sum(weights)
    return {
        name: sum(w / total * model[name] for w, model in zip(weights, models, strict=True))
        for name in models[0]
    }


def flat(weights: dict) -> np.ndarray:
    return np.concatenate([tensor.numpy().ravel().astype(float) for tensor in weights.values()])


def close(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        np.testing.assert_allclose(tensor.numpy(), expected[name].numpy(), atol=1e-5)
