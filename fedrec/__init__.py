"""Federated recommendation with differentially private adapters."""

__version__ = "0.1.0"
