"""Holds the Flower ServerApp: the round loop, the conversation with the clients, workloads and the run directory."""
