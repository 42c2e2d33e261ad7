"""Holds the mathematics of adaptation: networks, mixtures, losses, augmentation; no Flower in it."""
