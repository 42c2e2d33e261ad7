"""Scales pixel values, 0 to 255, to the ranges that models compute in, and back."""

from torch import Tensor

PIXEL_LEVELS = 256


def to_signed(images: Tensor) -> Tensor:
    """Scale uint8 to float32 in [-1, 1], as DDPM does."""
    return images.float() / 127.5 - 1


def from_signed(values: Tensor) -> Tensor:
    """Round values in [-1, 1] to the nearest uint8; what lies outside is clipped."""
    return ((values + 1) * 127.5).round().clamp(0, 255).byte()


def from_unit(values: Tensor) -> Tensor:
    """Round values in [0, 1], NCSN's range, to the nearest uint8; what lies outside is clipped."""
    return (values * 255).round().clamp(0, 255).byte()
