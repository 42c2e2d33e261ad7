"""Pixel values, 0 to 255, and the ranges that models compute in."""

from torch import Tensor

PIXEL_LEVELS = 256


def to_signed(images: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1], as DDPM scales its data."""
    return images.float() / 127.5 - 1


def from_signed(values: Tensor) -> Tensor:
    """The nearest uint8 of values in [-1, 1]; what lies outside is clipped."""
    return ((values + 1) * 127.5).round().clamp(0, 255).byte()


def from_unit(values: Tensor) -> Tensor:
    """The nearest uint8 of values in [0, 1], NCSN's range; what lies outside is clipped."""
    return (values * 255).round().clamp(0, 255).byte()
