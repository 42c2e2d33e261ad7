"""The federated algorithms, one file each, as Flower strategies."""
