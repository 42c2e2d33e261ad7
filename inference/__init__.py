"""Makes one model of what a client predicts with, for predict, export, report and notebooks."""
