"""Fits diagonal Gaussian mixtures over features, follows a client's features, and gives the weights w(x).

W_S is fitted on the server's source features (`fit`), W_T^i follows from it on client i by stepwise EM
(`StepwiseEM`), and the server asks all clients' mixtures at once (`StackedMixtures`).

Our choice: all values, as the notes say "a simple GMM" and no more; that the weight w(x) is a rank among likelihoods;
that quantiles come from held-out examples; that the client's update is stepwise EM, and its step sizes; and one floor
for the variances of all dimensions.

Shapes: N examples, B examples of a batch, D feature dimensions, K components, M mixtures, P = 1 + 2 D.

A diagonal Gaussian is an exponential family, so its weighted log-density is one scalar product::

    log pi_k N(x; mu_k, s_k) = <theta_k, t(x)>,     t(x) = [1, x, x^2]

with natural parameters theta_k of length P. Everything below is matrix products with t(x): the E-step asks
for the log-densities, the M-step for responsibility-weighted averages of t(x). They are taken in float64, as
the three terms nearly cancel; mixtures are stored and sent in float32.
"""

import math
import warnings
from dataclasses import dataclass, fields

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fmtda.adaptation.component_floor import Components, with_enough_examples

QUANTILES = 33
EXAMPLES_PER_COMPONENT = 20
HELD_OUT_SHARE = 0.2
HELD_OUT_FROM = 10  # with fewer examples, none is held out
VARIANCE_FLOOR = 1e-2  # of the source's variance, averaged over the dimensions
SMALLEST_VARIANCE = 1e-6  # where that is zero too: constant features
STEP_SIZE_DECAY = 0.7
ROWS_AT_ONCE = 8192  # of features: t(x) in float64 takes 16 D bytes a row

# Log-weight of an absent component. Finite, because -inf times 0 inside a matrix product would be NaN.
LOG_ZERO = -1e30


@dataclass(frozen=True, eq=False)
class Mixture:
    """Holds a diagonal Gaussian mixture and the log-likelihoods that are usual under it.

    Parameters
    ----------
    weights : Tensor, shape (K,)
        Non-negative, summing to one.
    means, variances : Tensor, shape (K, D)
    quantiles : Tensor, shape (33,)
        Of the log-likelihood over examples of the mixture's own domain, at levels 0, 1/32, ..., 1.

    All are float32, as they travel.
    """

    weights: Tensor
    means: Tensor
    variances: Tensor
    quantiles: Tensor

    def log_likelihood(self, features: Tensor) -> Tensor:
        """Compute the log-density of each example in nats: features (N, D) to float64 (N,)."""
        parts = [self._log_densities(part).logsumexp(dim=-1) for part in features.split(ROWS_AT_ONCE)]
        return torch.cat(parts) if parts else self._log_densities(features).logsumexp(dim=-1)

    def responsibilities(self, features: Tensor) -> Tensor:
        """Compute the posterior probability of each component: features (N, D) to float64 (N, K)."""
        return self._log_densities(features).softmax(dim=-1)

    @torch.no_grad()
    def typicality(self, features: Tensor) -> Tensor:
        """Compute the weight w(x) of Eq. 5 and Eq. 6: how usual an example is in the mixture's domain.

        Parameters
        ----------
        features : Tensor, shape (N, D)

        Returns
        -------
        Tensor, shape (N,), float32
            The place of log p(x) among the quantiles, interpolated linearly, in [0, 1]: 0 for an example less
            likely than all of the domain's own, 0.5 for one in their middle. No gradient flows through it.

        Notes
        -----
        Likelihoods and their ratios saturate in 128 dimensions, where they span hundreds of nats;
        ranks do not.
        """
        return _place_among(self.quantiles, self.log_likelihood(features)).float()

    def overall_variance(self) -> Tensor:
        """Compute the variance of the whole mixture in each dimension: float64 (D,)."""
        weights, means, variances = self.weights.double(), self.means.double(), self.variances.double()
        mean = weights @ means
        return weights @ (variances + (means - mean).square())

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the mixture as float32 arrays, keyed by field name."""
        return {field.name: getattr(self, field.name).cpu().numpy() for field in fields(self)}

    def tensors(self) -> dict[str, Tensor]:
        """Return the mixture's tensors, keyed by field name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Mixture":
        """Make the mixture that `arrays` came from, after a check.

        Raises
        ------
        ValueError
            Where an array is missing, superfluous or of the wrong shape, holds something that is not finite,
            or where weights, variances or quantiles cannot be a mixture's.
        """
        expected = [field.name for field in fields(cls)]
        if sorted(arrays) != sorted(expected):
            raise ValueError(f"mixture arrays are {sorted(arrays)}, expected {sorted(expected)}")
        # copies: a mixture must not change with the caller's arrays, and a message's may be read-only
        mixture = cls(**{name: torch.tensor(arrays[name], dtype=torch.float32) for name in expected})
        mixture._check()
        return mixture

    def to(self, device: torch.device | str) -> "Mixture":
        """Return the same mixture on another device."""
        return Mixture(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def _log_densities(self, features: Tensor) -> Tensor:
        """Weighted log-density of each component: features (N, D) to (N, K)."""
        dimensions = self.means.shape[-1]
        if features.ndim != 2 or features.shape[-1] != dimensions:
            raise ValueError(f"features have shape {tuple(features.shape)}, expected (N, {dimensions})")
        natural_parameters = _natural_parameters(self.weights, self.means, self.variances)
        return _sufficient_statistics(features) @ natural_parameters.T

    def _check(self) -> None:
        if self.means.ndim != 2 or 0 in self.means.shape:
            raise ValueError(f"mixture means have shape {tuple(self.means.shape)}, expected (K, D)")
        shapes = {"weights": self.means.shape[:1], "variances": self.means.shape, "quantiles": (QUANTILES,)}
        for name, shape in shapes.items():
            given = getattr(self, name).shape
            if given != shape:
                raise ValueError(f"mixture {name} have shape {tuple(given)}, expected {tuple(shape)}")
        for field in fields(self):
            if not getattr(self, field.name).isfinite().all():
                raise ValueError(f"mixture {field.name} hold values that are not finite")
        lowest, total = self.weights.min().item(), self.weights.sum().item()
        if lowest < 0 or abs(total - 1) > 1e-3:
            raise ValueError(f"mixture weights have minimum {lowest:g} and sum {total:g}, not 0 and 1")
        if self.variances.min() <= 0:
            raise ValueError(f"mixture variances have minimum {self.variances.min().item():g}, must be > 0")
        if (self.quantiles.diff() < 0).any():
            raise ValueError("mixture quantiles decrease somewhere, expected an increasing sequence")


def components_for(examples: int, wanted: int) -> int:
    """Count the components that the examples can carry: `wanted` at most, one per 20 examples, one at least."""
    return max(1, min(wanted, examples // EXAMPLES_PER_COMPONENT))


def hold_out(examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the examples into those that a mixture is fitted on, and those that its quantiles are taken from.

    Parameters
    ----------
    examples : int
        N, how many there are.
    seed : int

    Returns
    -------
    fitted, held_out : ndarray of int, each sorted
        Four fifths and one fifth, disjoint; all examples twice where there are fewer than 10.

    Notes
    -----
    Fitted examples look too likely. With N = 15 to 400 in 128 dimensions a new example's mean typicality was
    0.11 to 0.37 where the quantiles came from them, 0.43 to 0.52 where they came from held-out ones, be they
    only three (measured on ten Gaussian clusters; 0.5 is right). So even small clients hold out.
    """
    everything = np.arange(examples)
    if examples < HELD_OUT_FROM:
        return everything, everything
    held_out = np.random.default_rng(seed).permutation(examples) < round(HELD_OUT_SHARE * examples)
    return everything[~held_out], everything[held_out]


def fit(features: Tensor, components: int, seed: int) -> Mixture:
    """Fit a mixture by EM (FMTDA, Algorithm 1: "fit global GMM W_S on source data").

    Parameters
    ----------
    features : Tensor, shape (N, D)
        At least one example.
    components : int
        Wanted; fewer are fitted where there are fewer than 20 examples for each (`components_for`).
    seed : int
        Of the held-out examples and of scikit-learn's k-means start.

    Returns
    -------
    Mixture
        On the features' device. Equal arguments give equal bits.

    Raises
    ------
    ValueError
        Where there is no example or `components` is below one.
    """
    if features.ndim != 2 or len(features) == 0:
        raise ValueError(f"features have shape {tuple(features.shape)}, expected (N, D), N >= 1")
    if components < 1:
        raise ValueError(f"components={components} must be at least 1")
    fitted, held_out = (torch.from_numpy(part).to(features.device) for part in hold_out(len(features), seed))
    features = features.detach().double()
    floor = variance_floor(features.var(dim=0, correction=0))
    weights, means, variances = _expectation_maximisation(
        features[fitted], components_for(len(fitted), components), seed, floor
    )
    return _with_quantiles(weights, means, variances, features[held_out])


class StepwiseEM:
    """Lets W_T^i follow client i's features batch by batch (FMTDA, Algorithm 1: "update W_T^i on x_t^i").

    Starts as the source mixture; every `update` moves its expected sufficient statistics a step towards the
    batch's. With the whole data as batch and step size 1 that is one iteration of EM.

    Sources: Cappe and Moulines, "On-line expectation-maximization algorithm for latent data models", JRSS B
    2009; the step sizes' form is from Liang and Klein, "Online EM for unsupervised models", NAACL 2009.

    Parameters
    ----------
    source_mixture : Mixture
        W_S.
    features : Tensor, shape (N, D)
        The client's features that the batches will come from. Where they are few, only the components most
        responsible for them are kept (`components_for`), reweighted to sum to one.

    Attributes
    ----------
    weights, means, variances : Tensor, shapes (K,), (K, D), (K, D), float64
        The mixture as it stands now.
    """

    def __init__(self, source_mixture: Mixture, features: Tensor) -> None:
        keep = _most_responsible(source_mixture, features.detach())
        weights = source_mixture.weights[keep].double()
        self.weights = weights / weights.sum()
        self.means = source_mixture.means[keep].double()
        self.variances = source_mixture.variances[keep].double()
        self._floor = variance_floor(source_mixture.overall_variance())
        self._updates = 0
        second_moments = self.variances + self.means.square()
        moments = torch.cat([torch.ones_like(self.weights)[:, None], self.means, second_moments], dim=-1)
        self._statistics = self.weights[:, None] * moments  # E[r_k(x) t(x)], shape (K, P)

    @torch.no_grad()
    def update(self, features: Tensor, step_size: float | None = None) -> None:
        """Make one E-step on a batch, and the M-step that follows.

        Parameters
        ----------
        features : Tensor, shape (B, D)
        step_size : float, optional
            In [0, 1]. Default: ``(t + 2) ** -0.7`` for the t-th update, counted from 0.
        """
        if step_size is None:
            step_size = (self._updates + 2) ** -STEP_SIZE_DECAY
        statistics = _sufficient_statistics(features)
        natural_parameters = _natural_parameters(self.weights, self.means, self.variances)
        responsibilities = (statistics @ natural_parameters.T).softmax(dim=-1)
        self._statistics.lerp_(responsibilities.T @ statistics / len(features), step_size)
        self._updates += 1
        self._maximise()

    @torch.no_grad()
    def leave_out_small(self, features: Tensor, floor: int) -> None:
        """Keep the components alone that hold `floor` of these features (N, D) or more; after the last update."""
        if floor:
            natural_parameters = _natural_parameters(self.weights, self.means, self.variances)
            parts = features.split(ROWS_AT_ONCE)
            counts = torch.zeros_like(self.weights)
            for part in parts:
                counts += (_sufficient_statistics(part) @ natural_parameters.T).softmax(dim=-1).sum(dim=0)
            components = Components(self.weights, self.means, self.variances)
            self.weights, self.means, self.variances = with_enough_examples(components, counts, floor)

    def finish(self, held_out: Tensor) -> Mixture:
        """Return the mixture reached, with its quantiles over features (N, D) that no update saw (see `hold_out`)."""
        return _with_quantiles(self.weights, self.means, self.variances, held_out.detach())

    def _maximise(self) -> None:
        dimensions = self.means.shape[-1]
        mass, first, second = self._statistics.split([1, dimensions, dimensions], dim=-1)
        scale = mass.clamp(min=torch.finfo(mass.dtype).tiny)  # a component that lost all examples
        self.weights = mass[:, 0] / mass.sum()
        self.means = first / scale
        self.variances = (second / scale - self.means.square()).clamp_(min=self._floor)


class StackedMixtures:
    """Asks many mixtures at once: Eq. 6's weights for all clients come out of one matrix product.

    Build it once a round with `from_mixtures`.
    """

    def __init__(self, natural_parameters: Tensor, quantiles: Tensor) -> None:
        self._natural_parameters = natural_parameters  # (M, K, P)
        self._quantiles = quantiles  # (M, 33)

    @classmethod
    def from_mixtures(cls, mixtures: list[Mixture]) -> "StackedMixtures":
        """Stack mixtures over the same features; those with fewer components are padded with absent ones.

        Raises
        ------
        ValueError
            Where there is no mixture, or where they differ in their number of dimensions.
        """
        dimensions = sorted({mixture.means.shape[-1] for mixture in mixtures})
        if len(dimensions) != 1:
            raise ValueError(f"mixtures over {dimensions} dimensions, expected at least one and all the same")
        natural_parameters = _natural_parameters(
            pad_sequence([mixture.weights for mixture in mixtures], batch_first=True),
            pad_sequence([mixture.means for mixture in mixtures], batch_first=True),
            pad_sequence([mixture.variances for mixture in mixtures], batch_first=True, padding_value=1.0),
        )
        return cls(natural_parameters, torch.stack([mixture.quantiles for mixture in mixtures]))

    @torch.no_grad()
    def typicality(self, features: Tensor) -> Tensor:
        """Compute w_T^i(x) as `Mixture.typicality`, under every mixture: features (N, D) to float32 (M, N)."""
        mixtures, components, _ = self._natural_parameters.shape
        log_densities = _sufficient_statistics(features) @ self._natural_parameters.flatten(end_dim=1).T
        log_likelihood = log_densities.unflatten(-1, (mixtures, components)).logsumexp(dim=-1)
        return _place_among(self._quantiles, log_likelihood.T.contiguous()).float()


def _sufficient_statistics(features: Tensor) -> Tensor:
    """t(x) = [1, x, x^2]: (N, D) to float64 (N, P)."""
    features = features.double()
    return torch.cat([features.new_ones(len(features), 1), features, features.square()], dim=-1)


def _natural_parameters(weights: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """theta_k of each component: weights (..., K), means and variances (..., K, D) to float64 (..., K, P)."""
    weights, means, variances = weights.double(), means.double(), variances.double()
    precisions = variances.reciprocal()
    slopes = means * precisions
    log_normalisers = 0.5 * (means * slopes + variances.log() + math.log(2 * math.pi)).sum(dim=-1)
    offsets = weights.log().clamp(min=LOG_ZERO) - log_normalisers
    return torch.cat([offsets[..., None], slopes, -0.5 * precisions], dim=-1)


def _place_among(quantiles: Tensor, values: Tensor) -> Tensor:
    """Level in [0, 1] of each value among its row's quantiles: (..., Q) and (..., N) to (..., N)."""
    quantiles = quantiles.to(values.dtype)
    # quantiles[above - 1] <= value < quantiles[above]
    above = torch.searchsorted(quantiles, values, right=True)
    steps = quantiles.shape[-1] - 1
    upper = above.clamp(1, steps)
    low, high = quantiles.gather(-1, upper - 1), quantiles.gather(-1, upper)
    fraction = ((values - low) / (high - low)).clamp(0, 1)
    # outside the quantiles, where low and high may also be equal
    fraction = torch.where(above == 0, 0.0, torch.where(above > steps, 1.0, fraction))
    return (upper - 1 + fraction) / steps


def variance_floor(reference_variance: Tensor) -> float:
    """Compute the smallest variance that a component may have.

    One number for all dimensions: a feature silent on the source would else decide every likelihood alone.
    """
    return max(VARIANCE_FLOOR * reference_variance.mean().item(), SMALLEST_VARIANCE)


def _expectation_maximisation(
    features: Tensor, components: int, seed: int, floor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and variances; scikit-learn adds the floor to the variances instead of cutting at it."""
    if components == 1:  # scikit-learn's result, also for a single example, which it refuses
        variances = features.var(dim=0, correction=0, keepdim=True) + floor
        return features.new_ones(1), features.mean(dim=0, keepdim=True), variances
    model = GaussianMixture(
        components,
        covariance_type="diag",
        reg_covar=floor,
        random_state=int(np.random.default_rng(seed).integers(2**32)),  # scikit-learn takes 32 bits only
    )
    with warnings.catch_warnings():
        # no convergence in 100 iterations, or fewer distinct examples than components: it still serves
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features.cpu().numpy())
    fitted = (model.weights_, model.means_, model.covariances_)
    weights, means, variances = (torch.from_numpy(parameter).to(features.device) for parameter in fitted)
    return weights, means, variances


def _with_quantiles(weights: Tensor, means: Tensor, variances: Tensor, features: Tensor) -> Mixture:
    """Round to float32 first, so that the quantiles are those of the mixture that travels."""
    quantiles = weights.new_zeros(QUANTILES).float()
    mixture = Mixture(weights.float(), means.float(), variances.float(), quantiles)
    log_likelihood = mixture.log_likelihood(features)
    levels = torch.linspace(0, 1, QUANTILES, dtype=log_likelihood.dtype, device=log_likelihood.device)
    # one float32 step down: rounded up, a lone example would lie below its own quantiles
    quantiles.copy_(log_likelihood.quantile(levels).float().nextafter(quantiles.new_tensor(-math.inf)))
    return mixture


def _most_responsible(mixture: Mixture, features: Tensor) -> Tensor:
    """Indices, in order, of the components to keep for these features: (N, D) to (K',)."""
    keep = components_for(len(features), len(mixture.weights))
    return mixture.responsibilities(features).sum(dim=0).topk(keep).indices.sort().values
