"""FedLab: its serial SGD trainer and its synchronous server, in the loop of its own pipeline."""

import workload  # isort: skip  pins the process to one core

import torch
from fedlab.contrib.algorithm.basic_client import SGDSerialClientTrainer
from fedlab.contrib.algorithm.basic_server import SyncServerHandler
from torch.utils.data import DataLoader, TensorDataset


class Data:
    """What FedLab asks of a federated data set."""

    def __init__(self, work):
        self._sets = [
            TensorDataset(*map(torch.from_numpy, work.of(c))) for c in range(work.num_clients)
        ]

    def get_dataloader(self, client, batch_size):
        return DataLoader(self._sets[client], batch_size, shuffle=True)


def main(work, pacer):
    model = work.torch_model()
    server = SyncServerHandler(model, 10**9, work.cohort / work.num_clients)
    trainer = SGDSerialClientTrainer(model, work.num_clients)
    trainer.setup_dataset(Data(work))
    trainer.setup_optim(1, work.batch_size, work.lr)
    server.num_clients = trainer.num_clients

    def step():
        clients = server.sample_clients()
        trainer.local_process(server.downlink_package, clients)
        for package in trainer.uplink_package:
            server.load(package)
        return work.samples(clients)

    pacer.pace(step)


workload.serve(main)
