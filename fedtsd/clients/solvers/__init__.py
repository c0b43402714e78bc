"""Solvers: how a client trains, and which model it serves. One class a file, one YAML file each."""
