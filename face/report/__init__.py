"""Writes ``report.html``: what happened in a run, in several side by side, or in a benchmark, as one file."""
