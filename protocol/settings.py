"""The run's settings: one flat set of keys, parsed once from the run config into a frozen, validated object.

The same keys serve ``[tool.flwr.app.config]`` in pyproject.toml, ``flwr run --run-config``, ``fmtda simulate -c``
and the ``config`` record of every message. `RunSettings` is what every workload has, `Settings` is domain adaptation's;
those of the generative models are in `protocol.generative_settings`. A key whose right value depends on the workload,
the preset or the data defaults to ``auto``.
"""

import shlex
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from fmtda.protocol.seeds import client_name, client_names

AUTO = "auto"
Scalar = str | int | float | bool


class SettingsError(ValueError):
    """A setting that can't be used; the message names the key, the value and what is allowed."""


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class RunSettings(BaseModel):
    """What decides a run of any workload. Frozen; unknown keys are refused.

    Build it with `from_run_config`, which fills in ``auto``.

    Attributes
    ----------
    command : str
        The subcommand of ``fmtda`` that runs the workload.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=_kebab, allow_inf_nan=False)
    command: ClassVar[str]

    # What runs
    workload: str = Field(description="what the clients train")
    strategy: str = Field(description="federated algorithm")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="root of every random draw; equal seeds give equal results")
    rounds: int = Field(ge=1, le=100_000, description="federated rounds")
    clients: int = Field(ge=1, le=100_000, description="clients to wait for, spread over the targets")
    fraction: float = Field(1.0, gt=0, le=1, description="share of the clients that train in a round, drawn by name")
    evaluate_every: int = Field(1, ge=1, description="rounds from one evaluation to the next; the last has one")
    output: str = Field("", description="run directory, absolute; empty: a new one below ./runs")
    resume: bool = Field(False, description="continue the run in `output` from its last whole round")
    timeout: float = Field(3600.0, gt=0, description="seconds a phase waits for its clients before it goes on without")
    join_timeout: float = Field(60.0, gt=0, description="seconds to wait for `clients` nodes at the start")
    in_flight: int = Field(64, ge=0, description="messages under way at once at most; 0: no limit")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where server and clients compute")
    server_threads: int = Field(2, ge=1, le=256, description="torch threads of the server (a client always has one)")

    trackers: str = Field(
        "tensorboard",
        pattern=r"^(tensorboard|mlflow|wandb)(\s*,\s*(tensorboard|mlflow|wandb))*$",
        description="comma list of where the curves go: mlflow, wandb; tensorboard always",
    )

    # Data
    data: str = Field(
        min_length=1, description="family of domains, see docs/data.md; auto: digits, or fragments for molecules"
    )
    data_dir: str = Field("", description="folder with the data files; not needed for embedded data")
    targets: str = Field(min_length=1, description="comma list of the clients' domains")
    classes: str = Field(
        min_length=1, description="comma list of the class names, in the order of the labels; of molecules, their atoms"
    )
    input_shape: str = Field(
        pattern=r"^[1-9]\d*(x[1-9]\d*)*$", description="shape of one input: 3x96x96 for pictures, 800 for features"
    )
    target_limit: int = Field(6_000, ge=0, description="training examples of a target at most, a random part; 0: all")
    partition: Literal["iid", "dirichlet", "scaffold"] = Field(
        "iid", description="how a domain is split between its clients; scaffold: molecules of a scaffold stay together"
    )
    alpha: float = Field(0.5, gt=0, description="Dirichlet concentration; small: each client sees few classes")
    min_examples: int = Field(1, ge=1, description="a client with fewer training examples is refused by name")

    @classmethod
    def from_run_config(cls, config: Mapping[str, Scalar], family_defaults: Mapping[str, Scalar] | None = None) -> Self:
        """Validate a flat run config and fill in ``auto``.

        Parameters
        ----------
        config
            Keys in kebab-case; values as TOML gives them, or strings. Missing keys take their default.
        family_defaults
            What ``auto`` means for the chosen data (`domains.family.Family.defaults`); it wins over the preset: data
            that knows no scenery has none. Not needed where nothing is ``auto`` any more, as in a message.

        Raises
        ------
        SettingsError
            For an unknown key, a wrong type or a value out of range; one line per problem.
        """
        values = {key: value for key, value in config.items() if not cls._is_auto(key, value)}
        resolved = {**cls.auto_values(values), **(family_defaults or {}), **values}
        from_the_start = set(_names(resolved.get("targets", ""))) - set(_names(resolved.get("joining", "")))
        resolved.setdefault("clients", cls.auto_clients(len(from_the_start)))
        try:
            return cls.model_validate(resolved)
        except ValidationError as error:
            raise SettingsError("\n".join(cls._explain(problem) for problem in error.errors())) from None

    @classmethod
    @abstractmethod
    def auto_values(cls, given: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """What ``auto`` means where the data don't decide; may depend on what was given."""

    @classmethod
    def auto_clients(cls, targets: int) -> int:
        """How many clients there are for so many targets where nobody says."""
        return max(1, targets)

    @classmethod
    def by_key(cls) -> dict[str, FieldInfo]:
        """The fields by their run-config key."""
        return {field.alias: field for field in cls.model_fields.values()}

    @classmethod
    def defaults(cls) -> dict[str, Scalar]:
        """Every key with its default, ``auto`` where workload, preset or data decide."""
        return {key: AUTO if field.is_required() else field.default for key, field in cls.by_key().items()}

    def run_config(self) -> dict[str, Scalar]:
        """The effective settings as a flat run config: what config.toml holds and every message carries."""
        return self.model_dump(by_alias=True)

    @property
    def rounds_may_grow(self) -> bool:
        """Whether a finished run can go on for more rounds and equal one that was that long from the start."""
        return True

    @property
    def resume_command(self) -> str:
        """The line that continues the run."""
        return shlex.join(["fmtda", self.command, "--resume", self.output])

    @property
    def target_domains(self) -> tuple[str, ...]:
        """The comma list `targets` as names."""
        return _names(self.targets)

    @property
    def late_domains(self) -> tuple[str, ...]:
        """The domains of simulated clients that join late, as often as clients; none but in domain adaptation."""
        return ()

    @property
    def private(self) -> bool:
        """Whether what clients upload comes with a guarantee of differential privacy; never of a generative model."""
        return False

    @property
    def supernodes(self) -> int:
        """How many nodes a federation begins with: its clients, and in a simulation those that join late."""
        return self.clients + len(self.late_domains)

    def simulated_names(self, nodes: int) -> list[str]:
        """The names of a simulation's clients by partition number; those that join late have the last ones."""
        late = self.late_domains
        from_the_start = [domain for domain in self.target_domains if domain not in late]
        last = [client_name(domain, late[:place].count(domain)) for place, domain in enumerate(late)]
        return client_names(from_the_start, nodes - len(late)) + last

    @property
    def tracker_names(self) -> tuple[str, ...]:
        """The comma list `trackers` as names."""
        return _names(self.trackers)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The comma list `classes` as names."""
        return _names(self.classes)

    @property
    def shape(self) -> tuple[int, ...]:
        """`input-shape` as numbers."""
        return tuple(int(side) for side in self.input_shape.split("x"))

    def changed(self, **values: Scalar) -> Self:
        """A copy with other values, validated like the original."""
        return self.from_run_config({**self.run_config(), **{_kebab(key): v for key, v in values.items()}})

    @classmethod
    def _is_auto(cls, key: str, value: Scalar) -> bool:
        """Whether ``auto`` stands for a choice made elsewhere here (for the device it is a value)."""
        field = cls.by_key().get(key)
        return value == AUTO and field is not None and field.is_required()

    @classmethod
    def _explain(cls, problem: Mapping[str, Any]) -> str:
        key = str(problem["loc"][0])
        if problem["type"] == "extra_forbidden":
            return f"{key}: no such key; allowed are {', '.join(sorted(cls.by_key()))}"
        allowed = problem["msg"].removeprefix("Input ")
        return f"{key}={problem['input']}: {allowed} ({cls.by_key()[key].description})"


class Settings(RunSettings):
    """Everything that decides what a run of domain adaptation computes.

    Values that the paper's notes don't give are our choice throughout.
    """

    command = "simulate"

    workload: Literal["adaptation"] = Field("adaptation", description="what the clients train")
    strategy: str = Field(description="federated algorithm or peer, see docs/algorithm.md; auto: dualadapt")
    rounds: int = Field(ge=1, le=100_000, description="federated rounds; auto: 3")
    clients: int = Field(ge=1, le=100_000, description="clients to wait for, spread over the targets; auto: one each")
    preset: Literal["default", "paper"] = Field(
        "default",
        description="which extras `auto` switches on: all of the default ones, or none (the paper alone)",
    )

    # Data
    source: str = Field(min_length=1, description="the labelled domain on the server")
    source_limit: int = Field(20_000, ge=0, description="labelled examples used at most, a random part; 0: all")

    # Network and server-side training
    network: str = Field(min_length=1, description="G and F by name, see docs/algorithm.md")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of what G computes; bfloat16 (torch.autocast) is faster where the processor knows it"
    )
    base_dir: str = Field("", description="folder of pre-trained networks, shared by runs; empty: always pre-train")
    hold_out: float = Field(0.1, gt=0, lt=0.9, description="share of the source kept from training, for the guard")
    pretrain_steps: int = Field(ge=1, description="gradient steps of server-side pre-training (Algorithm 1, line 1)")
    pretrain_batch: int = Field(ge=2, description="examples in one of them")
    pretrain_learning_rate: float = Field(gt=0, description="peak of its one-cycle schedule (AdamW)")
    plain_steps: int = Field(ge=1, description="gradient steps of the plain source-only reference, without any extra")
    weight_decay: float = Field(5e-4, ge=0, description="AdamW's, in pre-training and fine-tuning")

    # DualAdapt, server side
    server_steps: int = Field(ge=0, description="R_s: alignment and fine-tuning steps a round (lines 14-18)")
    server_batch: int = Field(ge=2, description="source examples in one of them")
    align_learning_rate: float = Field(1e-5, gt=0, description="Adam step size of Eq. 6 on G (line 17)")
    finetune_learning_rate: float = Field(1e-4, gt=0, description="AdamW step size of fine-tuning G and F_g (line 18)")
    components: int = Field(10, ge=1, le=256, description="Gaussians in a mixture, at most one per 20 examples")

    # DualAdapt, client side
    client_steps: int = Field(
        ge=0, description="R_c: mini-batches a round for F_l (Eq. 5) and the mixture (lines 8-11)"
    )
    client_batch: int = Field(ge=1, description="examples in one of them")
    client_learning_rate: float = Field(1e-3, gt=0, description="Adam step size of Eq. 5 on F_l")
    places: int = Field(64, ge=0, description="segmentation: places of a picture that count in Eq. 5, W_T, W_S; 0: all")
    discrepancy_weight: float = Field(0.1, ge=0, description="lambda of Eq. 5")
    inference: Literal["mean", "local"] = Field(
        "mean", description="what predicts on a client: (p_g + p_l) / 2, or p_l alone"
    )
    cache_features: bool = Field(True, description="compute a client's features once a round (G is frozen there)")

    # Clients that join late
    joining: str = Field(
        "", description="simulation: comma list of targets that join late, each as often as it has clients"
    )
    join_round: int = Field(
        2, ge=2, description="simulation: the round in which they do; a late SuperNode needs no key"
    )
    join_rounds: int = Field(
        3, ge=0, description="rounds in which the weight in Eq. 6 of a client that joined late grows to that of others"
    )
    join_start: Literal["nearest", "global"] = Field(
        "nearest", description="F_l of a client that joined late starts at a blend of the nearest clients', or at F_g"
    )

    # The extras beyond the paper, each switchable alone
    standardise: bool = Field(description="extra: every input to zero mean and unit variance")
    randomise: bool = Field(description="extra: the labelled source changed at random, as its kind of inputs allows")
    scenery: bool = Field(description="extra: source digits on photographs, with neighbours (needs randomise)")
    local_batch_norm: bool = Field(description="extra: BatchNorm statistics re-estimated on each client, kept there")
    batch_norm_share: float = Field(1.0, ge=0, le=1, description="largest weight of a client's own; it chooses one")
    batch_norm_prior: float = Field(30.0, ge=0, description="examples at which the largest weight is half of that")
    self_train: bool = Field(description="extra: F_l and local BatchNorm scales by confident pseudo-labels")
    self_train_steps: int = Field(ge=1, description="gradient steps of it, before a client predicts")
    self_train_batch: int = Field(ge=1, description="examples in one of them")
    self_train_learning_rate: float = Field(gt=0, description="Adam step size of it, falling to zero")
    guard: bool = Field(description="extra: undo alignment steps that harm the source hold-out or raise discrepancy")
    robust_share: float = Field(
        ge=0, lt=0.5, description="extra: clients that may send anything, as a share; Eq. 6 leaves out its extremes"
    )
    personalise: bool = Field(False, description="extra, not in the default preset: own G on each client at the end")
    personalise_steps: int = Field(480, ge=1, description="gradient steps of it")
    personalise_batch: int = Field(ge=1, description="examples in one of them")
    personalise_learning_rate: float = Field(
        1e-3, gt=0, description="Adam step size of it and of fedavg-self-training's steps, falling to zero"
    )
    confidence: float = Field(0.9, ge=0, lt=1, description="pseudo-labels count above this probability")

    # Privacy of what a client uploads, see docs/privacy.md
    privacy_noise: float = Field(
        0.0, ge=0, description="noise multiplier of DP-SGD on F_l; 0: no noise (needs mixture-noise too)"
    )
    privacy_clip: float = Field(1.0, gt=0, description="largest norm of an example's gradient in DP-SGD")
    mixture_noise: float = Field(
        0.0, ge=0, description="noise multiplier of the statistics of W_T, once a round; 0: no noise"
    )
    privacy_delta: float = Field(1e-5, gt=0, lt=1, description="delta for which a client's epsilon is accounted")
    mixture_floor: int = Field(
        0, ge=0, description="examples that a component of an uploaded W_T holds at least; 0: any number"
    )

    # Peers
    local_steps: int = Field(ge=1, description="peers: gradient steps of a client a round")
    local_batch: int = Field(ge=2, description="peers: examples in one of them")
    local_learning_rate: float = Field(gt=0, description="fed-mcd, fed-dann, mcd, dann: Adam step size of them")

    @property
    def late_domains(self) -> tuple[str, ...]:
        """The comma list `joining` as names."""
        return _names(self.joining)

    @property
    def private(self) -> bool:
        """Whether noise is added to all that the clients upload."""
        return self.privacy_noise > 0 or self.mixture_noise > 0

    @property
    def rounds_may_grow(self) -> bool:
        """As in every run, but for ``fed-dann``, whose gradient reversal grows over all rounds."""
        return self.strategy != "fed-dann"

    @classmethod
    def auto_values(cls, given: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The strategy, the rounds, and the preset's switches."""
        preset = PRESETS.get(str(given.get("preset", "default")), PRESETS["default"])
        return {"data": "digits", "strategy": "dualadapt", "rounds": 3, **preset}


EXTRAS = ("standardise", "randomise", "scenery", "local-batch-norm", "self-train", "guard")

PRESETS: dict[str, dict[str, Scalar]] = {
    "default": {**dict.fromkeys(EXTRAS, True), "robust-share": 0.2},
    "paper": {**dict.fromkeys(EXTRAS, False), "robust-share": 0.0},
}


def _names(comma_list: Scalar) -> tuple[str, ...]:
    return tuple(name.strip() for name in str(comma_list).split(",") if name.strip())


def key_and_value(text: str) -> tuple[str, str]:
    """Take a setting that was given as KEY=VALUE apart.

    Raises
    ------
    SettingsError
        Without a key, or without an equals sign.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SettingsError(f"-c {text}: expected KEY=VALUE, as in -c rounds=5")
    return key.strip(), value.strip()
