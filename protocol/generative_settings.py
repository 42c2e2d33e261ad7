"""The settings of the generative workloads: what they share, then one class a model.

A key that only one model has is known to its class alone. All values are our choice unless a source stands beside them.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field

from fmtda.protocol.settings import RunSettings, Scalar, SettingsError

LOCAL = "local"
"""The strategy that is none: the clients' data pooled in one process, the reference for the federated ones."""

SERVER_LEARNING_RATES = {"fedavgm": 1.0, "fedadam": 0.01}
"""What `server-learning-rate` is by strategy where nobody says; the others have none."""

SHARING = ("fedavg", "fedprox")
"""The strategies that can average the clients' moments: those that do nothing but average."""


class GenerativeSettings(RunSettings):
    """Everything that decides what a run of any generative model computes.

    Attributes
    ----------
    auto : mapping
        What ``auto`` means for this model where neither the user nor the data say.
    """

    command = "generate"
    auto: ClassVar[Mapping[str, Scalar]]

    strategy: Literal["fedavg", "fedprox", "fedavgm", "fedadam", "local"] = Field(
        description="federated algorithm, or local: one process on pooled data; auto: fedavg"
    )
    clients: int = Field(ge=1, le=100_000, description="clients to wait for, spread over the targets; auto: 4 or more")
    classes: str = Field(
        description="comma list of the class names, in the order of the labels; empty: none; of molecules, their atoms"
    )

    # Training on the clients
    local_steps: int = Field(ge=1, description="gradient steps of a client a round; with local: of the process")
    local_batch: int = Field(ge=2, description="examples in one of them; a smaller client takes all of its own")
    local_learning_rate: float = Field(gt=0, description="Adam step size of them")
    local_moments: Literal["fresh", "averaged"] = Field(
        description="Adam's moments: zero in every round, or averaged like the model; auto: averaged for pictures"
    )
    learning_rate_schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="of the step size over all steps of the run; cosine falls to zero at the last"
    )
    warm_up_steps: int = Field(100, ge=0, description="steps of the run over which the step size rises linearly")
    gradient_clip: float = Field(1.0, ge=0, description="largest norm of a step's gradient; 0: any")
    proximal_mu: float = Field(0.01, ge=0, description="fedprox: weight of half the squared distance to the server's")

    # The server's part
    server_learning_rate: float = Field(
        gt=0, description="fedavgm, fedadam: step size on the clients' mean update; auto: 1, 0.01"
    )
    server_momentum: float = Field(0.9, ge=0, lt=1, description="fedavgm: momentum; fedadam: beta_1")
    server_beta2: float = Field(0.99, ge=0, lt=1, description="fedadam: beta_2")
    server_tau: float = Field(1e-3, gt=0, description="fedadam: added to the root of the second moment")
    ema_decay: float = Field(
        ge=0, lt=1, description="weight of the past in the server's moving average of the model, one update a round"
    )

    # What comes out
    sample_every: int = Field(20, ge=0, description="rounds between two samples in `samples`; 0: after the last only")
    sample_count: int = Field(64, ge=1, le=10_000, description="examples in one of them")
    quality_samples: int = Field(500, ge=0, description="examples drawn at the end to measure quality; 0: none")

    @classmethod
    def auto_values(cls, given: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The model's own values, and the step size of the strategy."""
        strategy = str(given.get("strategy", "fedavg"))
        rate = SERVER_LEARNING_RATES.get(strategy, 1.0)
        values = {"data": "digits", "strategy": strategy, "server-learning-rate": rate, **cls.auto}
        return values if strategy in (*SHARING, LOCAL) else {**values, "local-moments": "fresh"}

    @classmethod
    def from_run_config(cls, config: Mapping[str, Scalar], family_defaults: Mapping[str, Scalar] | None = None) -> Self:
        settings = super().from_run_config(config, family_defaults)
        if settings.local_moments == "averaged" and settings.strategy not in (*SHARING, LOCAL):
            raise SettingsError(
                f"local-moments=averaged: strategy={settings.strategy} does more than average; "
                f"take local-moments=fresh, or strategy={' or '.join(SHARING)}"
            )
        return settings

    @classmethod
    def auto_clients(cls, targets: int) -> int:
        """Four, or one a target where there are more."""
        return max(4, targets)

    @property
    def rounds_may_grow(self) -> bool:
        """With the cosine schedule every step size depends on the number of rounds."""
        return self.learning_rate_schedule == "constant"

    def sampled_by(self, sampler: str | None, steps: int | None) -> Self:
        """The settings with another way to sample, where the model has several.

        Raises
        ------
        SettingsError
            If it has not.
        """
        for option, value in {"--sampler": sampler, "--steps": steps}.items():
            if value is not None:
                raise SettingsError(f"{option} {value}: {self.workload} has one way to sample; leave it out")
        return self

    @property
    def gradient_steps(self) -> int:
        """How many steps a client makes in the whole run, or the one process of ``local``."""
        return self.rounds * self.local_steps


class ImageModelSettings(GenerativeSettings):
    """What the models of pictures share."""

    image_size: int = Field(16, ge=4, le=512, description="side of the square pictures that the model sees and makes")
    colour: Literal["grey", "rgb"] = Field("grey", description="colour of these pictures")
    width: int = Field(ge=8, description="channels of the network at full size, a multiple of 8")

    @property
    def channels(self) -> int:
        """Of a picture."""
        return 1 if self.colour == "grey" else 3


class DDPMSettings(ImageModelSettings):
    """Denoising diffusion probabilistic models (Ho et al. 2020), `generative.ddpm`."""

    auto = {
        "rounds": 100,
        "local-steps": 20,
        "local-batch": 64,
        "local-learning-rate": 2e-3,
        "local-moments": "averaged",
        "ema-decay": 0.75,
        "width": 16,
    }

    workload: Literal["ddpm"] = Field("ddpm", description="what the clients train")
    timesteps: int = Field(1000, ge=2, le=100_000, description="T: steps of the noise process")
    schedule: Literal["linear", "cosine"] = Field("cosine", description="of the variances beta_t")
    variance: Literal["posterior", "beta"] = Field("posterior", description="sigma_t^2 of the reverse process")
    implicit_steps: int = Field(
        50, ge=0, description="steps of DDIM that samples in a run are drawn with; 0: all T ancestral ones"
    )
    implicit_eta: float = Field(
        1.0, ge=0, le=1, description="eta of DDIM: 0 deterministic, 1 with as much fresh noise as ancestral steps"
    )

    def sampled_by(self, sampler: str | None, steps: int | None) -> Self:
        """`ddpm`: all ancestral steps; `ddim`: `steps` implicit ones."""
        if sampler not in (None, "ddpm", "ddim"):
            raise SettingsError(f"--sampler {sampler}: no such sampler; allowed are ddpm, ddim")
        if steps is not None and sampler != "ddim":
            raise SettingsError(f"--steps {steps}: only --sampler ddim has a number of steps; add it, or leave it out")
        if sampler is None:
            return self
        return self.changed(implicit_steps=(steps or 50) if sampler == "ddim" else 0)


class NCSNSettings(ImageModelSettings):
    """Noise-conditional score networks (Song and Ermon 2019), `generative.ncsn`."""

    auto = {
        "rounds": 100,
        "local-steps": 20,
        "local-batch": 64,
        "local-learning-rate": 2e-3,
        "local-moments": "averaged",
        "ema-decay": 0.75,
        "width": 16,
    }

    workload: Literal["ncsn"] = Field("ncsn", description="what the clients train")
    noise_levels: int = Field(45, ge=2, le=10_000, description="L: noise levels, falling geometrically")
    sigma_max: float = Field(7.0, gt=0, description="first of them, for pixel values in [0, 1]")
    sigma_min: float = Field(0.01, gt=0, description="last of them")
    langevin_steps: int = Field(5, ge=1, description="T: steps of Langevin dynamics at each level")
    langevin_step_size: float = Field(0.0, ge=0, description="epsilon of Algorithm 1; 0: the one that fits the levels")
    objective: Literal["noise-conditional", "denoising", "sliced", "exact"] = Field(
        "noise-conditional", description="which loss; all but the first learn the last noise level alone"
    )
    denoise: bool = Field(True, description="end sampling with one step to the expected clean picture")

    @property
    def step_size(self) -> float:
        """As `generative.ncsn` calls it."""
        return self.langevin_step_size


class MoleculeModelSettings(GenerativeSettings):
    """What the models of molecules share."""

    node_width: int = Field(64, ge=1, description="numbers that the state of a node has in their graph networks")
    temperature: float = Field(
        ge=0, le=2, description="what the prior's spread is multiplied by in sampling; auto: 1, mpgvae 0.7"
    )

    @property
    def nodes(self) -> int:
        """V: the most atoms that a molecule has."""
        return self.shape[0]

    @property
    def atom_kinds(self) -> int:
        """The table of atoms, and none."""
        return len(self.class_names) + 1


class GraphNVPSettings(MoleculeModelSettings):
    """GraphNVP (Madhawa et al. 2019), `generative.graph_nvp`."""

    auto = {
        "data": "fragments",
        "rounds": 20,
        "local-steps": 100,
        "local-batch": 256,
        "local-learning-rate": 3e-3,
        "local-moments": "fresh",
        "ema-decay": 0.5,
        "temperature": 1.0,
        "adjacency-turns": 3,
        "adjacency-width": 256,
        "node-turns": 2,
    }
    large: ClassVar[Mapping[str, Scalar]] = {"adjacency-turns": 1, "adjacency-width": 128, "node-turns": 1}
    """For ZINC-250k, whose 38 nodes have a coupling each in every turn."""

    workload: Literal["graph-nvp"] = Field("graph-nvp", description="what the clients train")
    coupling: Literal["affine", "additive"] = Field("affine", description="couplings scale and shift, or only shift")
    adjacency_turns: int = Field(ge=1, description="adjacency couplings of each node; auto: 3, zinc250k 1")
    adjacency_width: int = Field(ge=1, description="hidden units of their networks; auto: 256, zinc250k 128")
    node_turns: int = Field(ge=1, description="node couplings of each node; auto: 2, zinc250k 1")
    noise: float = Field(
        0.4, gt=0, lt=1, description="upper end of the uniform noise that makes graphs continuous; the paper's is 0.9"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of matrix products in training; bfloat16 is faster on processors that have it"
    )

    @classmethod
    def auto_values(cls, given: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """As every model's, and a network of the data's size."""
        return {**super().auto_values(given), **(cls.large if given.get("data") == "zinc250k" else {})}


class MPGVAESettings(MoleculeModelSettings):
    """MPGVAE (Flam-Shepherd et al. 2021), `generative.mpgvae`."""

    auto = {
        "data": "fragments",
        "rounds": 20,
        "local-steps": 100,
        "local-batch": 128,
        "local-learning-rate": 3e-3,
        "local-moments": "fresh",
        "ema-decay": 0.5,
        "temperature": 0.7,
    }

    workload: Literal["mpgvae"] = Field("mpgvae", description="what the clients train")
    message_width: int = Field(32, ge=1, description="width of messages, which are the states of edges")
    latent: int = Field(64, ge=1, description="dimensions of z")
    message_rounds: int = Field(3, ge=1, description="rounds of message passing in the encoder, and in the decoder")
    divergence_weight: float = Field(
        0.2, ge=0, description="of the divergence in the loss; at 1 it is the negative ELBO"
    )
    numbering: Literal["canonical", "given"] = Field(
        "canonical",
        description="order of atoms that the decoder learns: one that the graph gives itself, or the data's",
    )
    categories: Literal["likeliest", "drawn"] = Field(
        "likeliest", description="what sampling makes of the probabilities of atoms and bonds"
    )
