"""The Flower ClientApp: one file a workload."""
