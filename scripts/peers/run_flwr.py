"""Flower: its FedAvg strategy over its Ray simulation, one client at a time on the one core."""

import os
import sys
from pathlib import Path

os.environ |= {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONPATH": str(Path(__file__).parent),  # actors import the client from here
}
import workload  # isort: skip  pins the process to one core

import ray
from flower_client import client_app
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation


def main(work, pacer):
    class Paced(FedAvg):
        def aggregate_train(self, server_round, replies):
            replies = list(replies)
            found = super().aggregate_train(server_round, replies)
            counts = [r.content["metrics"]["num-examples"] for r in replies if not r.has_error()]
            if len(counts) < work.cohort:
                reason = next((r.error.reason for r in replies if r.has_error()), "no reply")
                raise RuntimeError(f"{len(counts)} of {work.cohort} clients answered: {reason}")
            pacer.round({"samples": sum(counts)})
            return found

    app = ServerApp()

    @app.main()
    def server(grid, context):
        from fedtsd.bench.port import Closed

        strategy = Paced(
            fraction_train=work.cohort / work.num_clients,
            fraction_evaluate=0.0,
            min_train_nodes=work.cohort,
            min_available_nodes=work.num_clients,
        )
        try:
            pacer.start(0)
            strategy.start(grid, ArrayRecord(work.torch_model().state_dict()), num_rounds=10**9)
        except Closed:
            ray.shutdown()
            os._exit(0)

    resources = {"client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": 1}}
    run_simulation(app, client_app(sys.argv[1]), work.num_clients, backend_config=resources)


workload.serve(main)
