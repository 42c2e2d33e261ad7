"""Holds the generative models, one file each: pure torch, trained and sampled without Flower."""
