"""Declares what every run has: the tables of settings that belong to no algorithm and to no generative model.

`RunSettings` is what all workloads share, `AdaptationSettings` and `GenerativeSettings` what each of the two kinds of
workloads adds. The table of the run's algorithm, and of its generative model, comes to these where both are known:
`strategies.composition` composes them.

Our choice: every value here that the paper's notes don't give, which are all but R_s, R_c and lambda by name.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, TypeVar, cast

from pydantic import Field, field_validator

from fmtda.protocol.client_names import check_domain, client_name, client_names
from fmtda.protocol.tables import AUTO, Affects, Scalar, SettingsError, Table, setting

__all__ = ["AUTO", "Affects", "Scalar", "SettingsError"]

NOTHING, PRETRAINING = Affects.NOTHING, Affects.PRETRAINING
PRESETS = ("default", "paper")

UNDISCLOSED = "undisclosed"
"""What a message carries in the place of a name that its receiver needs not know."""

ON_BY_DEFAULT: Mapping[str, Scalar] = {"default": True, "paper": False}
"""Of the extras: what goes beyond the paper, each switchable alone."""


OwnTable = TypeVar("OwnTable", bound=Table)


class DataSettings(Table):
    """Says which examples there are, of what classes and shape, and how they are shared out."""

    name: str = setting(
        affects=PRETRAINING,
        min_length=1,
        description="family of domains, see docs/data.md; auto: digits, or fragments for molecules",
    )
    dir: str = setting(
        "", affects=NOTHING, place=True, description="folder with the data files; not needed for embedded data"
    )
    targets: str = setting(
        by_data="targets",
        server_only=True,
        stand_in=UNDISCLOSED,
        min_length=1,
        description="comma list of the clients' domains",
    )
    classes: str = setting(
        by_data="classes",
        affects=PRETRAINING,
        description="comma list of the class names, in the order of the labels; of molecules, their atoms",
    )
    input_shape: str = setting(
        by_data="input-shape",
        affects=PRETRAINING,
        pattern=r"^[1-9]\d*(x[1-9]\d*)*$",
        description="shape of one input: 3x96x96 for pictures, 800 for features",
    )
    target_limit: int = setting(6_000, ge=0, description="training examples of a target at most, a random part; 0: all")
    partition: Literal["iid", "dirichlet", "scaffold"] = setting(
        "iid", description="how a domain is split between its clients; scaffold: molecules of a scaffold stay together"
    )
    alpha: float = setting(0.5, gt=0, description="Dirichlet concentration; small: each client sees few classes")
    min_examples: int = setting(1, ge=1, description="a client with fewer training examples is refused by name")

    @field_validator("targets")
    @classmethod
    def _names_of_domains(cls, targets: str) -> str:
        for domain in names_in(targets):
            check_domain(domain)
        return targets


class SimulationSettings(Table):
    """Says who comes late in a simulation; a deployment's nodes come when they come."""

    late: str = setting(
        "", server_only=True, description="comma list of targets that join late, each as often as it has clients"
    )
    late_round: int = setting(2, server_only=True, ge=2, description="the round in which they do")


class RunSettings(Table):
    """Decides a run of any workload.

    Attributes
    ----------
    kind : str
        Of the workload: what its runs have in common on the server, on the clients and for people.
    algorithm : Table
        The parameters of the run's algorithm, under its name; added where the settings are composed.
    """

    kind: ClassVar[Literal["adaptation", "generative"]]

    workload: str = setting(description="what the clients train")
    strategy: str = setting(
        min_length=1, description="federated algorithm: a name of docs/algorithm.md, or package.module:Class"
    )
    seed: int = setting(
        0,
        affects=PRETRAINING,
        ge=0,
        le=2**31 - 1,
        description="root of every random draw; equal seeds give equal results",
    )
    rounds: int = setting(affects=Affects.LENGTH, ge=1, le=100_000, description="federated rounds")
    clients: int = setting(
        server_only=True,
        stand_in=1,
        ge=1,
        le=100_000,
        description="clients to wait for, spread over the targets; auto: one each, or 4 or more",
    )
    fraction: float = setting(
        1.0, server_only=True, gt=0, le=1, description="share of the clients that train in a round, drawn by name"
    )
    evaluate_every: int = setting(
        1, affects=NOTHING, ge=1, description="rounds from one evaluation to the next; the last has one"
    )
    output: str = setting(
        "", affects=NOTHING, place=True, description="run directory, absolute; empty: a new one below ./runs"
    )
    resume: bool = setting(
        False, affects=NOTHING, place=True, description="continue the run in `output` from its last whole round"
    )
    timeout: float = setting(
        3600.0, affects=NOTHING, gt=0, description="seconds a phase waits for its clients before it goes on without"
    )
    join_timeout: float = setting(
        60.0, affects=NOTHING, gt=0, description="seconds to wait for `clients` nodes, and for a new one's name"
    )
    min_clients: int = setting(
        1, affects=NOTHING, ge=1, description="clients a deployment begins with at least; a simulation wants all"
    )
    silent_rounds: int = setting(
        2,
        affects=NOTHING,
        ge=0,
        description="a client silent in so many rounds in a row is left out until it answers again; 0: never",
    )
    nodes_file: str = setting(
        "", affects=NOTHING, place=True, description="which registered node is which client, by `fmtda deploy`; TOML"
    )
    average_cap: float = setting(
        10.0, ge=0, description="where models are averaged: largest weight, in medians of the round's clients; 0: any"
    )
    in_flight: int = setting(64, affects=NOTHING, ge=0, description="messages under way at once at most; 0: no limit")
    device: Literal["auto", "cpu", "cuda"] = setting(
        "auto", affects=PRETRAINING, description="where server and clients compute"
    )
    server_threads: int = setting(
        2,
        affects=PRETRAINING,
        server_only=True,
        ge=1,
        le=256,
        description="torch threads of the server (a client always has one)",
    )
    trackers: str = setting(
        "tensorboard",
        affects=NOTHING,
        pattern=r"^(tensorboard|mlflow|wandb)(\s*,\s*(tensorboard|mlflow|wandb))*$",
        description="comma list of where the curves go: mlflow, wandb; tensorboard always",
    )
    data: DataSettings
    algorithm: Any = Field(default=Table(), exclude=True)

    @classmethod
    def usual(cls, given: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Say what ``auto`` is by dotted key where neither data nor preset do."""
        return {}

    def own(self, kind: type[OwnTable]) -> OwnTable:
        """Return the algorithm's table, which is of this kind."""
        return cast(OwnTable, self.algorithm)

    @classmethod
    def usual_clients(cls, targets: int) -> int:
        """Say how many clients there are for so many targets where nobody else does."""
        return max(1, targets)

    @property
    def rounds_may_grow(self) -> bool:
        """Whether a finished run can go on for more rounds and equal one that was that long from the start."""
        return not self.algorithm.needs_rounds if isinstance(self.algorithm, Parameters) else True

    @property
    def target_domains(self) -> tuple[str, ...]:
        """The comma list `data.targets` as names."""
        return names_in(self.data.targets)

    @property
    def source_domains(self) -> tuple[str, ...]:
        """The labelled domain on the server, where the workload has one."""
        return ()

    @property
    def late_domains(self) -> tuple[str, ...]:
        """The domains of simulated clients that join late, as often as clients; none but in domain adaptation."""
        return ()

    def absent_domains(self, server_round: int) -> tuple[str, ...]:
        """Say which domains' simulated clients are to come later than in this round."""
        return ()

    @property
    def private(self) -> bool:
        """Whether what clients upload comes with a guarantee of differential privacy; never of a generative model."""
        return False

    @property
    def supernodes(self) -> int:
        """The number of nodes that a federation begins with: its clients, and in a simulation those that join late."""
        return self.clients + len(self.late_domains)

    def simulated_names(self, nodes: int) -> list[str]:
        """Name a simulation's clients by partition number; those that join late have the last ones."""
        late = self.late_domains
        from_the_start = [domain for domain in self.target_domains if domain not in late]
        last = [client_name(domain, late[:place].count(domain)) for place, domain in enumerate(late)]
        return client_names(from_the_start, nodes - len(late)) + last

    def disclosed(self) -> Self:
        """Make the copy that messages carry to clients on machines of their own.

        It says what a client needs for its part: no path, no other domain, no number of clients, nothing that only the
        server does. In the place of `output` is a word that tells one run from another, the same after a resume.
        """
        values = self.flat()
        for entry in self.fields():
            if not entry.meaning.disclosed:
                stand_in = entry.meaning.stand_in
                values[entry.key] = entry.field.default if stand_in is None else stand_in
        run = hashlib.sha256(self.output.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return self.validated({**values, "output": f"run-{run}"})

    @property
    def tracker_names(self) -> tuple[str, ...]:
        """The comma list `trackers` as names."""
        return names_in(self.trackers)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The comma list `data.classes` as names."""
        return names_in(self.data.classes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The setting `data.input-shape` as numbers."""
        return tuple(int(side) for side in self.data.input_shape.split("x"))

    def changed(self, values: Mapping[str, Scalar]) -> Self:
        """Make a copy with other values by dotted keys, validated like the original; the algorithm stays."""
        return self.validated({**self.flat(), **values})


class Parameters(Table):
    """Holds the parameters of an algorithm.

    Attributes
    ----------
    needs_rounds : bool
        Whether a step depends on how many rounds there are, so that no run can be made longer afterwards.
    """

    needs_rounds: ClassVar[bool] = False


class SourceDataSettings(DataSettings):
    """Adds a labelled source to these."""

    classes: str = setting(
        by_data="classes",
        affects=PRETRAINING,
        min_length=1,
        description="comma list of the class names, in the order of the labels",
    )
    source: str = setting(
        by_data="source",
        affects=PRETRAINING,
        server_only=True,
        stand_in=UNDISCLOSED,
        min_length=1,
        description="the labelled domain on the server",
    )
    source_limit: int = setting(
        20_000,
        affects=PRETRAINING,
        server_only=True,
        ge=0,
        description="labelled examples used at most, a random part; 0: all",
    )
    hold_out: float = setting(
        0.1,
        affects=PRETRAINING,
        server_only=True,
        gt=0,
        lt=0.9,
        description="share of the source kept from training, for the guard",
    )

    @field_validator("source")
    @classmethod
    def _name_of_a_domain(cls, source: str) -> str:
        check_domain(source)
        return source


class NetworkSettings(Table):
    """Says which networks G and F are."""

    name: str = setting(
        by_data="network", affects=PRETRAINING, min_length=1, description="G and F by name, see docs/algorithm.md"
    )
    precision: Literal["float32", "bfloat16"] = setting(
        "float32",
        affects=PRETRAINING,
        description="of what G computes; bfloat16 (torch.autocast) is faster where the processor knows it",
    )


class InputSettings(Table):
    """Says how inputs are prepared, and how the labelled source is changed while it is trained on."""

    standardise: bool = setting(
        affects=PRETRAINING,
        by_data="standardise",
        by_preset=ON_BY_DEFAULT,
        description="extra: every input to zero mean and unit variance",
    )
    randomise: bool = setting(
        affects=PRETRAINING,
        by_data="randomise",
        by_preset=ON_BY_DEFAULT,
        description="extra: the labelled source changed at random, as its kind of inputs allows",
    )
    scenery: bool = setting(
        affects=PRETRAINING,
        by_data="scenery",
        by_preset=ON_BY_DEFAULT,
        description="extra: source digits on photographs, with neighbours (needs inputs.randomise)",
    )


class PretrainingSettings(Table):
    """Sets the pre-training on the server (Algorithm 1, line 1)."""

    base_dir: str = setting(
        "",
        affects=NOTHING,
        place=True,
        description="folder of pre-trained networks, shared by runs; empty: always pre-train",
    )
    steps: int = setting(
        by_data="pretraining-steps",
        affects=PRETRAINING,
        server_only=True,
        stand_in=1,
        ge=1,
        description="gradient steps on the labelled source",
    )
    batch: int = setting(
        by_data="pretraining-batch",
        affects=PRETRAINING,
        server_only=True,
        stand_in=2,
        ge=2,
        description="examples in one of them",
    )
    learning_rate: float = setting(
        by_data="pretraining-learning-rate",
        affects=PRETRAINING,
        server_only=True,
        stand_in=1.0,
        gt=0,
        description="peak of its one-cycle schedule (AdamW)",
    )
    plain_steps: int = setting(
        by_data="plain-steps",
        affects=PRETRAINING,
        server_only=True,
        stand_in=1,
        ge=1,
        description="gradient steps of the plain source-only reference, without any extra",
    )
    weight_decay: float = setting(5e-4, affects=PRETRAINING, server_only=True, ge=0, description="AdamW's")


class PrivacySettings(Table):
    """Sets the noise on what a client uploads, see docs/privacy.md."""

    noise: float = setting(
        0.0, ge=0, description="noise multiplier of DP-SGD on F_l; 0: no noise (needs privacy.mixture-noise too)"
    )
    clip: float = setting(1.0, gt=0, description="largest norm of an example's gradient in DP-SGD")
    mixture_noise: float = setting(
        0.0, ge=0, description="noise multiplier of the statistics of W_T, once a round; 0: no noise"
    )
    delta: float = setting(1e-5, gt=0, lt=1, description="delta for which a client's epsilon is accounted")
    mixture_floor: int = setting(
        0, ge=0, description="examples that a component of an uploaded W_T holds at least; 0: any number"
    )


class AdaptationSettings(RunSettings):
    """Decides a run of domain adaptation."""

    kind = "adaptation"

    workload: Literal["adaptation"] = setting("adaptation", description="what the clients train")
    preset: Literal["default", "paper"] = setting(
        "default",
        description="which extras `auto` switches on: all of the default ones, or none (the paper alone)",
    )
    data: SourceDataSettings
    network: NetworkSettings
    inputs: InputSettings
    pretraining: PretrainingSettings
    simulation: SimulationSettings
    privacy: PrivacySettings

    @classmethod
    def usual(cls, given: Mapping[str, Scalar]) -> dict[str, Scalar]:
        return {"data.name": "digits", "rounds": 3}

    @property
    def source_domains(self) -> tuple[str, ...]:
        """The source, as the one that there is."""
        return (self.data.source,)

    @property
    def late_domains(self) -> tuple[str, ...]:
        """The comma list `simulation.late` as names."""
        return names_in(self.simulation.late)

    def absent_domains(self, server_round: int) -> tuple[str, ...]:
        """Name the late domains before their round."""
        return self.late_domains if server_round < self.simulation.late_round else ()

    @property
    def private(self) -> bool:
        """Whether noise is added to all that the clients upload."""
        return self.privacy.noise > 0 or self.privacy.mixture_noise > 0


class LocalTrainingSettings(Table):
    """Sets the training of a generative model on a client."""

    steps: int = setting(ge=1, description="gradient steps of a client a round; pooled: of the process")
    batch: int = setting(ge=2, description="examples in one of them; a smaller client takes all of its own")
    learning_rate: float = setting(gt=0, description="Adam step size of them")
    moments: Literal["fresh", "averaged"] = setting(
        description="Adam's moments: zero in every round, or averaged like the model; auto: averaged for pictures"
    )
    schedule: Literal["constant", "cosine"] = setting(
        "cosine", description="of the step size over all steps of the run; cosine falls to zero at the last"
    )
    warm_up_steps: int = setting(100, ge=0, description="steps of the run over which the step size rises linearly")
    gradient_clip: float = setting(1.0, ge=0, description="largest norm of a step's gradient; 0: any")
    ema_decay: float = setting(
        ge=0, lt=1, description="weight of the past in the server's moving average of the model, one update a round"
    )


class SampleSettings(Table):
    """Says what is drawn from a generative model in a run, and at its end."""

    every: int = setting(
        20, server_only=True, ge=0, description="rounds between two samples in `samples`; 0: after the last only"
    )
    count: int = setting(64, server_only=True, ge=1, le=10_000, description="examples in one of them")
    quality: int = setting(
        500, server_only=True, ge=0, description="examples drawn at the end to measure quality; 0: none"
    )


class GenerativeSettings(RunSettings):
    """Decides a run of a generative model.

    Attributes
    ----------
    model : Table
        The model's own settings, under its name; added where the settings are composed.
    """

    kind = "generative"

    training: LocalTrainingSettings
    samples: SampleSettings
    model: Any = Field(default=Table(), exclude=True)

    @classmethod
    def usual_clients(cls, targets: int) -> int:
        """Take four clients, or one a target where there are more."""
        return max(4, targets)

    @property
    def rounds_may_grow(self) -> bool:
        """Whether, besides, the schedule is constant: the cosine's step sizes depend on the number of rounds."""
        return super().rounds_may_grow and self.training.schedule == "constant"

    @property
    def gradient_steps(self) -> int:
        """The number of steps that a client makes in the whole run, or the one process on pooled data."""
        return self.rounds * self.training.steps


def names_in(comma_list: Scalar) -> tuple[str, ...]:
    """Return the names in a comma list."""
    return tuple(name.strip() for name in str(comma_list).split(",") if name.strip())
