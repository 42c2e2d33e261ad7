"""Changes light, colour, sharpness and texture of photographs and scenes at random; no pixel moves.

The single changes are torchvision's of the same names, with a parameter for each picture of a batch, which its own
functions don't take; tests hold the two together.

Our choice: that grey 0.5 counts as zero for a random convolution, and that the edge is repeated for it; the sizes of
blurs and convolutions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fmtda.adaptation.random_draws import Draws

# Shapes: N pictures, 3 channels, H rows, W columns, float32 in [0, 1]; parameters broadcast as (N, 1, 1, 1).

BLUR_RADIUS = 4
"""How many pixels to each side a blur looks at."""

KERNEL = 7
"""The side of the largest random convolution, odd."""


@dataclass(frozen=True)
class Photometry:
    """Says how strongly `change_photometry` changes; zero leaves a part out.

    Attributes
    ----------
    brightness, contrast, saturation : float
        Factors are drawn from 1 - value to 1 + value, value in [0, 1].
    hue : float
        Largest turn of the colour circle both ways, 0 to 0.5 (half a turn).
    greyscale : float
        Chance in [0, 1] that a picture loses its colours.
    gamma, gain : float
        Largest logarithm (both ways) of the exponent, and of the factor of each channel.
    noise : float
        Largest standard deviation of the noise of each pixel and channel; 1 is black against white.
    blur : float
        Chance in [0, 1] of a blur.
    sigma : float
        Largest standard deviation of a blur, in pixels.
    texture : float
        Chance in [0, 1] of a random convolution.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    greyscale: float = 0.0
    gamma: float = 0.0
    gain: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    sigma: float = 1.5
    texture: float = 0.0


def change_photometry(images: Tensor, generator: torch.Generator, settings: Photometry) -> Tensor:
    """Change texture, colour, light, blur and noise of every picture at random; no pixel moves.

    Parameters
    ----------
    images : Tensor, (N, 3, H, W), uint8
    generator : torch.Generator
        Source of every draw. On whichever device it is, the draws are moved to that of the images.
    settings : Photometry

    Returns
    -------
    Tensor, (N, 3, H, W), uint8
    """
    draw = Draws(generator, len(images), images.device)
    scene = images.float() / 255
    if settings.texture > 0:
        parameters = (_kernels(draw), draw.uniform(0, 1))
        scene = _on_some(scene, draw.chance(settings.texture), random_convolution, *parameters)
    if settings.hue > 0:
        scene = turn_hue(scene, draw.uniform(-settings.hue, settings.hue))
    if settings.saturation > 0 or settings.greyscale > 0:
        factors = _around_one(draw, settings.saturation)
        scene = adjust_saturation(scene, torch.where(draw.chance(settings.greyscale), 0.0, factors))
    if settings.contrast > 0:
        scene = adjust_contrast(scene, _around_one(draw, settings.contrast))
    if settings.brightness > 0:
        scene = adjust_brightness(scene, _around_one(draw, settings.brightness))
    if settings.gain > 0:
        scene = adjust_brightness(scene, draw.uniform(-settings.gain, settings.gain, channels=3).exp())
    if settings.gamma > 0:
        scene = scene.pow(draw.uniform(-settings.gamma, settings.gamma).exp())
    if settings.blur > 0:
        sigma = draw.uniform(0.1, settings.sigma)
        scene = _on_some(scene, draw.chance(settings.blur), gaussian_blur, sigma)
    if settings.noise > 0:
        scene = scene + draw.normal(*scene.shape[1:]) * draw.uniform(0, settings.noise)
    return (scene * 255).round_().clamp_(0, 255).to(torch.uint8)


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply pictures by their factor; factors (N, 3, 1, 1) are one a channel."""
    return (images * factors).clamp_(0, 1)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Draw pictures away from the mean of their grey levels (factor above 1) or towards it."""
    mean = _grey(images).mean(dim=(2, 3), keepdim=True)
    return torch.lerp(mean, images, factors).clamp_(0, 1)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Draw every pixel away from its own grey level (factor above 1) or towards it; 0 is greyscale."""
    return torch.lerp(_grey(images), images, factors).clamp_(0, 1)


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn every pixel's hue around the colour circle and keep value and saturation (HSV); 1 is a full turn."""
    red, green, blue = images.unbind(dim=1)
    value, least = images.amax(dim=1), images.amin(dim=1)
    spread = value - least
    divisor = spread.clamp(min=1e-8)
    # The hue in sixths of the circle: 0 red, 2 green, 4 blue.
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    # A channel has all of the spread up to one sixth away from its own hue, and nothing of it from two sixths on.
    channels = [(hue + (6 * turns[:, 0] - own + 3)).remainder_(6).sub_(3).abs_() for own in (0, 2, 4)]
    missing = torch.stack(channels, dim=1).sub_(1).clamp_(0, 1).mul_(spread[:, None])
    return value[:, None] - missing


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur pictures with their own standard deviation in pixels, mirrored at the border."""
    count, channels, height, width = images.shape
    places = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=images.device)
    weights = torch.softmax(-0.5 * (places / sigma.view(-1, 1)) ** 2, dim=1).repeat_interleave(channels, dim=0)
    padded = functional.pad(images, [BLUR_RADIUS] * 4, mode="reflect").flatten(0, 1)[None]
    rows = functional.conv2d(padded, weights[:, None, :, None], groups=count * channels)
    return functional.conv2d(rows, weights[:, None, None, :], groups=count * channels).view(images.shape)


def random_convolution(images: Tensor, kernels: Tensor, share: Tensor) -> Tensor:
    """Mix pictures with their own random convolution: shapes stay, textures and colours change.

    RandConv (Xu et al. 2021): x' = a x + (1 - a) (k * x). Grey 0.5 counts as zero, and the edge is repeated.

    Parameters
    ----------
    images : Tensor, (N, 3, H, W)
    kernels : Tensor, (N, 3, 3, k, k)
        By output and input channel, k odd.
    share : Tensor, (N, 1, 1, 1)
        a in [0, 1].
    """
    padded = functional.pad(images - 0.5, [kernels.shape[-1] // 2] * 4, mode="replicate")
    # One at a time: on a CPU, torch's grouped convolution takes four times as long.
    pairs = zip(padded, kernels, strict=True)
    convolved = torch.stack([functional.conv2d(image, kernel) for image, kernel in pairs])
    return torch.lerp(convolved + 0.5, images, share).clamp_(0, 1)


def _kernels(draw: Draws) -> Tensor:
    """Random convolutions (N, 3, 3, 7, 7) of side 1, 3, 5 or 7, zero outside it, variance 1 / (3 side²).

    This is He's scaling without the factor for ReLU: a picture keeps its mean square on average.
    """
    radius = draw.indices(KERNEL // 2 + 1)
    distance = (torch.arange(KERNEL, device=draw.device) - KERNEL // 2).abs()
    inside = torch.maximum(distance[:, None], distance) <= radius[:, None, None]
    scale = (3 * (2 * radius + 1) ** 2) ** -0.5
    return draw.normal(3, 3, KERNEL, KERNEL) * (inside * scale[:, None, None])[:, None, None]


def _around_one(draw: Draws, strength: float) -> Tensor:
    return draw.uniform(1 - strength, 1 + strength)


def _on_some(images: Tensor, chosen: Tensor, change: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
    """Do `change` to the pictures `chosen` (N, 1, 1, 1), each with its own parameters, in place."""
    places = chosen.flatten().nonzero().flatten()
    if len(places) == 0:
        return images
    return images.index_copy_(0, places, change(images[places], *(values[places] for values in parameters)))


def _grey(images: Tensor) -> Tensor:
    """Grey levels (N, 1, H, W) by the weights of ITU-R BT.601."""
    red, green, blue = images.split(1, dim=1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue
