"""Holds what both sides of the wire agree on: settings, records, names and seeds, the compute device."""
