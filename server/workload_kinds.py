"""Joins the kinds of workloads to everything that serves them all."""

from fmtda.protocol.settings import RunSettings
from fmtda.server.adaptation import AdaptationRun, adaptation_metric
from fmtda.server.conversation import Conversation
from fmtda.server.generative import GenerativeRun
from fmtda.server.metrics import LOSS
from fmtda.server.run_directory import RunDirectory
from fmtda.server.workload import Workload

WORKLOADS: dict[str, type[Workload]] = {each.kind: each for each in (AdaptationRun, GenerativeRun)}
"""By the kind of their settings."""


def workload_of(settings: RunSettings, conversation: Conversation, run: RunDirectory) -> Workload:
    """Make the server's side of a run's workload."""
    return WORKLOADS[settings.kind](settings, conversation, run)


def metric_of(settings: RunSettings) -> str:
    """Name what a run measures: a key of `server.metrics.METRIC_NAMES`."""
    return adaptation_metric(settings) if settings.kind == AdaptationRun.kind else LOSS
