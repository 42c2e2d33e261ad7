"""Holds the federated algorithms, a file or folder each, with both of their sides."""
