"""Declares DualAdapt's table of settings, and its rows in the benchmark's table.

Our choice: all values but the existence of R_s, R_c and lambda, which the paper's notes name without a number.
"""

from typing import Literal

from fmtda.protocol.settings import ON_BY_DEFAULT, Parameters
from fmtda.protocol.tables import Affects, Scalar, Switchable, Table, setting
from fmtda.strategies.algorithm import BenchmarkRow


class BatchNormSettings(Switchable):
    """Sets BatchNorm statistics of a client's own."""

    on: bool = setting(
        by_data="own-statistics",
        by_preset=ON_BY_DEFAULT,
        description="extra: BatchNorm statistics re-estimated on each client, kept there",
    )
    share: float = setting(1.0, ge=0, le=1, description="largest weight of a client's own; it chooses one")
    prior: float = setting(30.0, ge=0, description="examples at which the largest weight is half of that")


class SelfTrainingSettings(Switchable):
    """Sets the self-training of F_l and BatchNorm scales before a client predicts."""

    on: bool = setting(
        by_preset=ON_BY_DEFAULT, description="extra: F_l and local BatchNorm scales by confident pseudo-labels"
    )
    steps: int = setting(by_data="self-training-steps", ge=1, description="gradient steps, before a client predicts")
    batch: int = setting(by_data="self-training-batch", ge=1, description="examples in one of them")
    learning_rate: float = setting(
        by_data="self-training-learning-rate", gt=0, description="Adam step size of it, falling to zero"
    )
    confidence: float = setting(0.9, ge=0, lt=1, description="pseudo-labels count above this probability")


class PersonaliseSettings(Switchable):
    """Sets the training of a client's own copy of G and head, at the end."""

    on: bool = setting(False, description="extra, not in the default preset: own G on each client at the end")
    steps: int = setting(480, ge=1, description="gradient steps of it")
    batch: int = setting(by_data="personal-batch", ge=1, description="examples in one of them")
    learning_rate: float = setting(1e-3, gt=0, description="Adam step size of it, falling to zero")
    confidence: float = setting(0.9, ge=0, lt=1, description="pseudo-labels count above this probability")


class JoiningSettings(Table):
    """Says what clients get that join a run under way."""

    rounds: int = setting(
        3,
        affects=Affects.NEWCOMERS,
        server_only=True,
        ge=0,
        description="rounds in which the weight in Eq. 6 of a client that joined late grows to that of others",
    )
    start: Literal["nearest", "global"] = setting(
        "nearest",
        affects=Affects.NEWCOMERS,
        server_only=True,
        description="F_l of a client that joined late starts at a blend of the nearest clients', or at F_g",
    )


class DualAdaptParameters(Parameters):
    """Holds the parameters of DualAdapt."""

    # Server side
    server_steps: int = setting(
        by_data="server-steps",
        server_only=True,
        stand_in=0,
        ge=0,
        description="R_s: alignment and fine-tuning steps a round (lines 14-18)",
    )
    server_batch: int = setting(
        by_data="server-batch", server_only=True, stand_in=2, ge=2, description="source examples in one of them"
    )
    align_learning_rate: float = setting(
        1e-5, server_only=True, gt=0, description="Adam step size of Eq. 6 on G (line 17)"
    )
    finetune_learning_rate: float = setting(
        1e-4, server_only=True, gt=0, description="AdamW step size of fine-tuning G and F_g (line 18)"
    )
    weight_decay: float = setting(5e-4, server_only=True, ge=0, description="AdamW's in fine-tuning")
    components: int = setting(10, ge=1, le=256, description="Gaussians in a mixture, at most one per 20 examples")
    guard: bool = setting(
        by_preset=ON_BY_DEFAULT,
        server_only=True,
        stand_in=False,
        description="extra: undo alignment steps that harm the source hold-out or raise discrepancy",
    )
    robust_share: float = setting(
        by_preset={"default": 0.2, "paper": 0.0},
        server_only=True,
        stand_in=0.0,
        ge=0,
        lt=0.5,
        description="extra: clients that may send anything, as a share; Eq. 6 leaves out its extremes",
    )

    # Client side
    client_steps: int = setting(
        by_data="head-steps",
        ge=0,
        description="R_c: mini-batches a round for F_l (Eq. 5) and the mixture (lines 8-11)",
    )
    client_batch: int = setting(by_data="head-batch", ge=1, description="examples in one of them")
    client_learning_rate: float = setting(1e-3, gt=0, description="Adam step size of Eq. 5 on F_l")
    places: int = setting(
        64, ge=0, description="segmentation: places of a picture that count in Eq. 5, W_T, W_S; 0: all"
    )
    discrepancy_weight: float = setting(0.1, ge=0, description="lambda of Eq. 5")
    inference: Literal["mean", "local"] = setting(
        "mean", description="what predicts on a client: (p_g + p_l) / 2, or p_l alone"
    )
    cache_features: bool = setting(True, description="compute a client's features once a round (G is frozen there)")
    batch_norm: BatchNormSettings
    self_training: SelfTrainingSettings
    personalise: PersonaliseSettings
    joining: JoiningSettings


EXTRAS = {
    "standardise": "inputs.standardise",
    "randomise": "inputs.randomise",
    "scenery": "inputs.scenery",
    "local-batch-norm": "dualadapt.batch-norm.on",
    "self-train": "dualadapt.self-training.on",
    "guard": "dualadapt.guard",
}
"""The extras of the default preset by their names in tables, and their switches."""


def _alone(extra: str) -> BenchmarkRow:
    scenery = extra == "scenery"
    switches = [EXTRAS["randomise"], EXTRAS[extra]] if scenery else [EXTRAS[extra]]
    with_what = "randomise and scenery" if scenery else extra
    changes: dict[str, Scalar] = {"preset": "paper", **dict.fromkeys(switches, True)}
    needs = (EXTRAS[extra],) if scenery else ()
    return BenchmarkRow(f"paper+{extra}", f"preset paper with {with_what} alone", "ablation", changes, needs)


def _left_out(extra: str) -> BenchmarkRow:
    randomise = extra == "randomise"
    switches = [EXTRAS[extra], EXTRAS["scenery"]] if randomise else [EXTRAS[extra]]
    without = "randomise and the scenery in it" if randomise else extra
    changes: dict[str, Scalar] = dict.fromkeys(switches, False)
    return BenchmarkRow(f"default-{extra}", f"preset default without {without}", "ablation", changes, (EXTRAS[extra],))


NO_CLIENT_STEPS: dict[str, Scalar] = {"dualadapt.client-steps": 0}
NO_SERVER_STEPS: dict[str, Scalar] = {"dualadapt.server-steps": 0}

ROWS = (
    BenchmarkRow(
        "dualadapt-paper", "DualAdapt as published (Yao et al. 2022)", changes={"preset": "paper"}, against=True
    ),
    BenchmarkRow("dualadapt", "DualAdapt with the default preset's extras", against=True),
    BenchmarkRow(
        "dualadapt-no-scenery",
        "without knowledge of the targets",
        "variant",
        {EXTRAS["scenery"]: False},
        (EXTRAS["scenery"],),
        against=True,
    ),
    BenchmarkRow(
        "dualadapt-personalise",
        "at the end each client trains its own copy",
        "variant",
        {"dualadapt.personalise.on": True},
    ),
    *(_alone(extra) for extra in EXTRAS),
    *(_left_out(extra) for extra in EXTRAS if extra != "scenery"),  # that one is dualadapt-no-scenery
    BenchmarkRow("default-eq5", "preset default without Eq. 5: F_l starts as F_g", "ablation", NO_CLIENT_STEPS),
    BenchmarkRow("default-eq6", "preset default without Eq. 6 and fine-tuning", "ablation", NO_SERVER_STEPS),
    BenchmarkRow(
        "default-both",
        "preset default without either: what each client gains alone",
        "ablation",
        {**NO_CLIENT_STEPS, **NO_SERVER_STEPS},
    ),
)
