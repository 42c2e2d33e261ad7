"""Judges generated pictures by a small classifier that is trained on the same real pictures.

The Frechet distance here is **no Inception FID**: the features are those of this classifier and not of Inception-v3
on ImageNet, which needs a download and knows nothing of small digits. Its values compare models judged by the same
classifier on equally many pictures, and nothing else; published FIDs are of another scale. Like any Frechet distance
from samples it is biased upwards, the more the fewer there are: what as many held-out real pictures get is the floor.

Our choice: all values. The change of a training picture is mild: more, and the judge would take for digits what a
person would not.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fmtda.generative.pixels import to_signed
from fmtda.protocol.runtime import repair_torchvision

CONFIDENT = 0.9
BATCH, LEARNING_RATE, WEIGHT_DECAY = 64, 4e-3, 1e-3
LARGEST_ROTATION = math.radians(8)
LARGEST_SCALING = 0.08
LARGEST_SHIFT = 0.07  # as a share of the side
AT_ONCE = 500  # pictures in a forward pass


class PictureClassifier(nn.Module):
    """This is the judge: three blocks of convolution, BatchNorm, ReLU and pooling, and a linear layer on 64 features.

    Parameters
    ----------
    channels : int
        C of the pictures, (N, C, H, W) of any size from 8x8 on.
    classes : int
    """

    num_features = 64
    """Of how many features the Frechet distance is; the name is the one that torchmetrics looks for."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        layers: list[nn.Module] = []
        for size in (32, 64, self.num_features):
            layers += [
                nn.Conv2d(channels, size, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(size),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            channels = size
        self.features = nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(self.num_features, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Compute logits: float pictures in [-1, 1] to (N, classes)."""
        return self.head(self.features(pictures))


class PictureQuality(NamedTuple):
    """Holds what the judge says of generated pictures.

    Attributes
    ----------
    frechet_distance : float
        Between Gaussians fitted to the features of real and of generated pictures; 0 is best.
    confident_share : float
        Of generated pictures, those with a class of more than 0.9 probability.
    class_shares : Tensor, (classes,)
        How the generated pictures' likeliest classes are spread; sums to one.
    """

    frechet_distance: float
    confident_share: float
    class_shares: Tensor


def train_classifier(images: Tensor, labels: Tensor, classes: int, seed: int, steps: int = 500) -> PictureClassifier:
    """Train a judge for pictures like these.

    Parameters
    ----------
    images : Tensor, (N, C, H, W), uint8
    labels : Tensor, (N,), int64
        -1 where unknown; those pictures are left out.
    classes : int
    seed : int
        Fixes weights, order and changes of the pictures; torch's global generator is left as it was.
    steps : int
        Of training, 64 pictures each.

    Returns
    -------
    PictureClassifier
        In evaluation mode, on the images' device.

    Raises
    ------
    ValueError
        If there are fewer than two labelled pictures, or they are smaller than 8x8.
    """
    known = labels >= 0
    if known.sum() < 2 or min(images.shape[-2:]) < 8:
        given = f"{int(known.sum())} labelled pictures of {tuple(images.shape[-2:])}"
        raise ValueError(f"{given} cannot train a judge of image quality; give at least 2, of 8x8 at least")
    images, labels = images[known], labels[known]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = PictureClassifier(images.shape[1], classes).to(images.device)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(classifier.parameters(), weight_decay=WEIGHT_DECAY)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(images), (BATCH,), generator=generator).to(images.device)
        loss = functional.cross_entropy(classifier(_changed(to_signed(images[chosen]), generator)), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
    return classifier.eval()


@torch.no_grad()
def judge(classifier: PictureClassifier, real: Tensor, generated: Tensor) -> PictureQuality:
    """Compare generated pictures with real ones.

    Parameters
    ----------
    classifier : PictureClassifier
        In evaluation mode.
    real, generated : Tensor, (N, C, H, W), uint8
        At least two each, on the classifier's device. More of them than features (64) give a distance that means
        something.
    """
    probabilities = torch.cat([classifier(part).softmax(dim=1) for part in _prepared(generated)])
    confidence, likeliest = probabilities.max(dim=1)
    return PictureQuality(
        frechet_distance(classifier, real, generated),
        (confidence > CONFIDENT).float().mean().item(),
        torch.bincount(likeliest, minlength=probabilities.shape[1]) / len(likeliest),
    )


@torch.no_grad()
def frechet_distance(classifier: PictureClassifier, real: Tensor, generated: Tensor) -> float:
    """Compute the Frechet distance of two sets of uint8 pictures in the classifier's features."""
    repair_torchvision()
    from torchmetrics.image.fid import FrechetInceptionDistance  # it imports torchvision

    distance = FrechetInceptionDistance(_Features(classifier)).to(real.device)
    for images, is_real in ((real, True), (generated, False)):
        for part in _prepared(images):
            distance.update(part, real=is_real)
    return distance.compute().item()


def image_grid(images: Tensor, columns: int = 8) -> Tensor:
    """Lay pictures side by side with a grey line between: uint8 (N, C, H, W) to one (3, rows, columns)."""
    repair_torchvision()
    from torchvision.utils import make_grid

    return make_grid(images.cpu(), nrow=columns, padding=1, pad_value=128)


class _Features(nn.Module):
    """The classifier without its head, as torchmetrics wants an extractor."""

    def __init__(self, classifier: PictureClassifier):
        super().__init__()
        self.classifier = classifier
        self.num_features = classifier.num_features

    def forward(self, pictures: Tensor) -> Tensor:
        return self.classifier.features(pictures)


def _prepared(images: Tensor) -> list[Tensor]:
    return [to_signed(part) for part in images.split(AT_ONCE)]


def _changed(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Every picture a little rotated, scaled and shifted; what enters repeats the edge."""
    draws = 2 * torch.rand(4, len(pictures), generator=generator).to(pictures.device) - 1
    angle, scale = LARGEST_ROTATION * draws[0], 1 + LARGEST_SCALING * draws[1]
    shift = 2 * LARGEST_SHIFT * draws[2:]  # coordinates run from -1 to 1
    rows = torch.stack([scale * angle.cos(), -scale * angle.sin(), shift[0]], dim=1)
    columns = torch.stack([scale * angle.sin(), scale * angle.cos(), shift[1]], dim=1)
    grid = functional.affine_grid(torch.stack([rows, columns], dim=1), list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
