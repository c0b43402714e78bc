"""Flower's client: a module of its own, as the simulation's actors import it."""

from functools import cache
from pathlib import Path

import torch
import workload
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch.utils.data import DataLoader, TensorDataset


@cache
def at_hand(folder):
    """Return workload, model and loaders: once per process, not once per message."""
    work = workload.Workload.read(Path(folder))
    sets = [TensorDataset(*map(torch.from_numpy, work.of(c))) for c in range(work.num_clients)]
    return work.torch_model(), [DataLoader(s, work.batch_size, shuffle=True) for s in sets], work.lr


def client_app(folder):
    app = ClientApp()

    @app.train()
    def train(message, context):
        model, loaders, lr = at_hand(folder)
        loader = loaders[int(context.node_config["partition-id"])]
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr)
        model.train()
        for inputs, labels in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        metrics = MetricRecord({"num-examples": len(loader.dataset)})
        content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
        return Message(content=content, reply_to=message)

    return app
