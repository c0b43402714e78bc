"""pfl-research: its federated averaging over its simulated backend."""

import workload  # isort: skip  pins the process to one core

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel


class Trained(torch.nn.Module):
    """The model with the two methods that pfl asks for."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def loss(self, inputs, labels):
        self.train()
        return torch.nn.functional.cross_entropy(self.model(inputs), labels)

    def metrics(self, inputs, labels):
        return {}


class Rounds(TrainingProcessCallback):
    """Lets the run go on round by round; counts the samples of the clients that were drawn."""

    def __init__(self, pacer, drawn, samples):
        self._pacer, self._drawn, self._samples = pacer, drawn, samples

    def on_train_begin(self, *, model):
        self._pacer.start(0)
        return Metrics()

    def after_central_iteration(self, aggregate_metrics, model, **about):
        self._pacer.round({"samples": self._samples(self._drawn)})
        self._drawn.clear()
        return False, Metrics()


def main(work, pacer):
    model = Trained(work.torch_model())
    central = torch.optim.SGD(model.parameters(), 1.0)
    # Tensors, made once: pfl makes them of arrays in every batch otherwise.
    data = [tuple(map(torch.from_numpy, work.of(c))) for c in range(work.num_clients)]
    drawn, queue = [], []

    def next_user():
        if not queue:
            queue.extend(work.choose())
        return queue.pop()

    def dataset(client):
        drawn.append(client)
        inputs, labels = data[client]
        order = torch.randperm(len(labels))
        return Dataset([inputs[order], labels[order]], user_id=str(client))

    FederatedAveraging().run(
        NNAlgorithmParams(10**9, 10**9, work.cohort, None),
        SimulatedBackend(FederatedDataset(dataset, next_user), None),
        PyTorchModel(model, torch.optim.SGD, central),
        NNTrainHyperParams(
            local_batch_size=work.batch_size, local_num_epochs=1, local_learning_rate=work.lr
        ),
        NNEvalHyperParams(local_batch_size=None),
        [Rounds(pacer, drawn, work.samples)],
    )


workload.serve(main)
