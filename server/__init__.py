"""Holds the Flower ServerApp: the conversation, the round loop, the workloads, checkpoints and the run directory."""
