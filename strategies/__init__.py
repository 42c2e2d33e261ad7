"""Holds the federated algorithms, one file or folder each with both sides, and the settings that a run is made of."""
