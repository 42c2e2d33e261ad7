"""Keeps, on the client itself, what a run and the client's owner promise about what leaves it."""

from flwr.app import Message, MetricRecord

from fmtda.domains.client import Client
from fmtda.domains.examples import DataError
from fmtda.strategies.algorithm import FederatedAlgorithm

DECLARED = ("num-examples", "seconds", "epsilon")
"""The metrics that leave a client in a run with privacy: docs/privacy.md says what each tells."""


def check(client: Client, algorithm: FederatedAlgorithm) -> None:
    """Refuse, before anything is computed, what would break the promises of the run or of the client's owner.

    Raises
    ------
    DataError
        Naming the key, what was given and what to do.
    """
    if client.epsilon_limit is not None and not client.settings.private:
        raise DataError(
            f"{client.name}: epsilon-limit={client.epsilon_limit:g} in its node config, but this run adds no noise; "
            "set privacy.noise and privacy.mixture-noise"
        )
    if client.settings.private and not algorithm.private:
        raise DataError(
            f"{client.name}: strategy={algorithm.name} uploads what no noise is added to; "
            "take another with privacy.noise"
        )


def withheld(reply: Message, client: Client) -> Message:
    """Take away the metrics that say more of the client's examples than docs/privacy.md declares."""
    if client.settings.private:
        metrics = reply.content.metric_records["metrics"]
        reply.content["metrics"] = MetricRecord({key: metrics[key] for key in DECLARED if key in metrics})
    return reply


def withheld_evaluation(reply: Message, client: Client) -> Message:
    """Do the same, unless the client's owner lets the numbers of its evaluation leave."""
    return reply if client.shares_evaluation else withheld(reply, client)
