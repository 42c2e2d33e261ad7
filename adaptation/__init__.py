"""The mathematics of adaptation: networks, mixtures, losses, augmentation. Knows torch, numpy and scikit-learn only."""
