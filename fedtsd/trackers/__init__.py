"""Trackers: a record of a run in TensorBoard, MLflow or Weights & Biases, beside its own tables.

All of them are extras, off by default, and write files on this machine alone.
"""
