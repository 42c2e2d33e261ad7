"""Runs a federation on this machine or on a Ray cluster, or within one process."""
