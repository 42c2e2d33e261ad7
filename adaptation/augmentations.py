"""The augmentations by kind of inputs; a new kind is a file beside this and a line here."""

from adaptation.augment import Augmentation
from adaptation.augment_digits import DigitAugmentation
from adaptation.augment_features import FeatureAugmentation
from adaptation.augment_photographs import PhotographAugmentation
from adaptation.augment_scenes import SceneAugmentation

AUGMENTATIONS: dict[str, Augmentation] = {
    "digits": DigitAugmentation(),
    "photographs": PhotographAugmentation(),
    "scenes": SceneAugmentation(),
    "features": FeatureAugmentation(),
}
