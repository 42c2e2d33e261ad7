"""Makes a finished run a model: what a client predicts with, for predict, export, report and notebooks."""
