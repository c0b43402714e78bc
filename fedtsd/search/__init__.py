"""Hyper-parameter search by validation scores, with optuna (an extra)."""

from fedtsd.search.command import search_command

__all__ = ["search_command"]
