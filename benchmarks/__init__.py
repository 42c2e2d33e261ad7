"""Measures fmtda by programs, run as ``python -m benchmarks.NAME`` in a checkout; nothing of it is installed."""
