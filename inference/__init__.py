"""What a client predicts with, as one model: used by predict, export, report and notebooks."""
