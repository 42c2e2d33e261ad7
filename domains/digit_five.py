"""Holds the family `digit-five`: MNIST, USPS, SVHN and MNIST-M out of their official files, and rendered digits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from fmtda.domains import digit_files, rendered_digits
from fmtda.domains.cache import cached, fingerprint
from fmtda.domains.examples import DataError, Examples
from fmtda.domains.family import DataSpec, Family, Part

# Raised whenever a change here, in digit_files or in rendered_digits.py changes a picture.
RECIPE_VERSION = 3

DOWNLOADABLE = ("mnist", "usps", "svhn")
"""The domains that torchvision knows an address for."""

RENDERED_COUNTS: dict[Part, int] = {"train": 6000, "test": 2000}


class DigitFive(Family):
    """Holds the digit domains of M3SDA (Peng et al. 2019, "Moment Matching for Multi-Source Domain Adaptation").

    All are brought to 32x32 and three channels: MNIST's 28x28 get a margin of 2, USPS's 16x16 are enlarged to
    28x28 first. `fonts`, rendered from a seed, stands in for SynthDigits, which cannot be had from a lasting
    address.
    """

    name = "digit-five"
    kind = "digits"
    origin = "fmtda data fetch mnist, usps, svhn; mnist-m by hand; fonts are rendered"
    classes = tuple("0123456789")
    input_shape = (3, 32, 32)
    domains = ("mnist", "usps", "svhn", "mnist-m", "fonts")
    default_source = "mnist"
    default_targets = ("mnist-m", "svhn", "usps")
    training: ClassVar = {
        "network": "small-cnn",
        "pretraining-learning-rate": 4e-3,
        "server-batch": 64,
        "head-batch": 64,
        "network-learning-rate": 2e-4,
        "pretraining-steps": 4000,
        "pretraining-batch": 128,
        "plain-steps": 600,
        "server-steps": 100,
        "head-steps": 200,
        "self-training-steps": 240,
        "self-training-batch": 128,
        "self-training-learning-rate": 2e-2,
        "personal-batch": 128,
        "network-batch": 64,
        "network-steps": 100,
    }

    def check(self, domains: Sequence[str], spec: DataSpec) -> None:
        super().check(domains, spec)
        for domain in domains:
            if domain != "fonts":
                digit_files.check(domain, _folder(domain, spec.data_dir))

    def load(self, domain: str, part: Part, spec: DataSpec) -> Examples:
        self.check([domain], spec)
        key = {"family": self.name, "domain": domain, "part": part, "recipe": RECIPE_VERSION}
        if domain == "fonts":
            rng = self.generator(domain, part, spec.seed)
            return cached(key | {"seed": spec.seed}, lambda: rendered_digits.fonts(RENDERED_COUNTS[part], part, rng))
        files = digit_files.located(domain, part, _folder(domain, spec.data_dir))
        return cached(key | {"files": fingerprint(files)}, lambda: digit_files.read(domain, part, files))

    def fetch(self, domain: str, data_dir: Path) -> None:
        """Download a domain into `data_dir`, in torchvision's layout; nothing happens if it is there already.

        Parameters
        ----------
        domain : str
            One of `DOWNLOADABLE`.
        data_dir : Path
            Created if need be.

        Raises
        ------
        DataError
            If torchvision doesn't offer the domain, or the download fails.
        """
        super().check([domain], DataSpec(data_dir))
        if domain not in DOWNLOADABLE:
            raise DataError(f"domain {domain!r} cannot be downloaded; allowed: {', '.join(DOWNLOADABLE)}")
        try:
            return self.check([domain], DataSpec(data_dir))
        except DataError as error:
            found = str(error)

        from fmtda.protocol.runtime import repair_torchvision

        repair_torchvision()
        from torchvision import datasets

        try:
            for train in (True, False):
                if domain == "mnist":
                    datasets.MNIST(data_dir, train=train, download=True)
                elif domain == "usps":
                    (data_dir / "USPS").mkdir(parents=True, exist_ok=True)
                    datasets.USPS(data_dir / "USPS", train=train, download=True)
                else:
                    datasets.SVHN(data_dir / "SVHN", split="train" if train else "test", download=True)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"domain {domain!r} could not be downloaded into {data_dir} ({reason}); before that: {found}. "
                "Remove a damaged file, check the network, or copy the files there by hand"
            ) from error


def _folder(domain: str, data_dir: Path | None) -> Path:
    if data_dir is None:
        raise DataError(f"domain {domain!r} is read from files: give the folder they lie in with --data-dir")
    if not data_dir.is_dir():
        raise DataError(f"--data-dir {data_dir} is no folder; domain {domain!r} is read from files there")
    return data_dir
