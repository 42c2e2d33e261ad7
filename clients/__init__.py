"""Holds the Flower ClientApp, which knows no algorithm by name."""
