"""fedtsd: an experiment runner for clustered, personalised federated learning."""

__version__ = "0.1.0"
