"""fedjax: its federated averaging, compiled by XLA for one thread."""

import os

import workload  # isort: skip  pins the process to one core

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import fedjax
import jax
import numpy as np
from fedjax.algorithms import fed_avg
from jax.example_libraries import stax


def network(name):
    if name == "mlp":
        layers = [stax.Flatten, stax.Dense(200), stax.Relu, stax.Dense(200), stax.Relu]
        return stax.serial(*layers, stax.Dense(10))
    features = []
    for width in (32, 64):
        features += [stax.Conv(width, (5, 5)), stax.Relu, stax.MaxPool((2, 2), (2, 2))]
    return stax.serial(*features, stax.Flatten, stax.Dense(512), stax.Relu, stax.Dense(10))


def loss(batch, outputs):
    chosen = jax.nn.log_softmax(outputs)[jax.numpy.arange(len(batch["y"])), batch["y"]]
    return -chosen


def main(work, pacer):
    images = np.moveaxis(work.inputs, 1, -1)  # XLA wants the colours last
    shape = (-1, *images.shape[1:])
    init, apply = network(work.model)
    model = fedjax.create_model_from_stax(init, apply, shape, loss, {})
    work = type(work)(**{**vars(work), "inputs": np.ascontiguousarray(images)})
    clients = []
    for client in range(work.num_clients):
        inputs, labels = work.of(client)
        clients.append(fedjax.ClientDataset({"x": inputs, "y": labels}))
    algorithm = fed_avg.federated_averaging(
        fedjax.model_grad(model),
        fedjax.optimizers.sgd(work.lr),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(batch_size=work.batch_size, num_epochs=1),
    )
    key = jax.random.PRNGKey(0)
    state = algorithm.init(model.init(key))

    def step():
        nonlocal state
        chosen = work.choose()
        state, _ = algorithm.apply(state, [(c, clients[c], key) for c in chosen])
        jax.block_until_ready(state.params)
        return work.samples(chosen)

    pacer.pace(step)


workload.serve(main)
