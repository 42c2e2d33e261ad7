"""The augmentations by kind of inputs; a new kind is a file beside this and a line here."""

from fmtda.adaptation.augment import Augmentation
from fmtda.adaptation.augment_digits import DigitAugmentation
from fmtda.adaptation.augment_features import FeatureAugmentation
from fmtda.adaptation.augment_photographs import PhotographAugmentation
from fmtda.adaptation.augment_scenes import SceneAugmentation

AUGMENTATIONS: dict[str, Augmentation] = {
    "digits": DigitAugmentation(),
    "photographs": PhotographAugmentation(),
    "scenes": SceneAugmentation(),
    "features": FeatureAugmentation(),
}
