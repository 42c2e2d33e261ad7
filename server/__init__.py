"""The Flower ServerApp: pre-training, the round driver, checkpoints and the run directory."""
