"""The Flower ClientApp: what a client does with each kind of message."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fmtda.clients import (
    adabn,
    adaptation,
    domain_adversarial,
    evaluation,
    generative,
    illustration,
    joining,
    mcd,
    privacy,
    self_training,
)
from fmtda.clients.identity import Client, identify
from fmtda.protocol.generative_settings import GenerativeSettings
from fmtda.protocol.records import reply_to
from fmtda.protocol.runtime import prepare_to_compute

TRAINERS = {
    "dualadapt": adaptation.train,
    "fedavg-self-training": self_training.train,
    "fed-mcd": mcd.train,
    "fed-dann": domain_adversarial.train,
}
"""Domain adaptation: the training of each strategy that has one on its clients."""

EVALUATORS = {"dualadapt": adaptation.evaluate, "adabn": adabn.evaluate, "fed-mcd": mcd.evaluate}
"""Domain adaptation: how the clients of a strategy predict; those of the others with F_g as it came."""

CLIENT_THREADS = 1
"""Everywhere, so that simulation and deployment agree bit by bit."""

app = ClientApp()


@app.query()
def introduce(message: Message, context: Context) -> Message:
    """Say who this client is, how much it holds, and whether it agrees to show examples."""
    prepare_to_compute(CLIENT_THREADS)
    client = identify(message, context)
    held = {"train-examples": len(client.train), "test-examples": len(client.test)}
    return reply_to(message, client.name, {**held, "shares-examples": int(client.shares_examples)})


@app.query("join")
def join(message: Message, context: Context) -> Message:
    """Upload a mixture alone, to join a federation under way."""
    prepare_to_compute(CLIENT_THREADS)
    client = _participant(message, context)
    return privacy.withheld(joining.join(message, client), client)


@app.query("illustrate")
def illustrate(message: Message, context: Context) -> Message:
    """Show a few examples for the run's report, where the client's owner has agreed."""
    prepare_to_compute(CLIENT_THREADS)
    return illustration.illustrate(message, identify(message, context))


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train as the run's workload and strategy want it."""
    prepare_to_compute(CLIENT_THREADS)
    client = _participant(message, context)
    if isinstance(client.settings, GenerativeSettings):
        return generative.train(message, client)
    return privacy.withheld(TRAINERS[client.settings.strategy](message, client), client)


@app.train("personalise")
def personalise(message: Message, context: Context) -> Message:
    """Train and keep the client's own copy of the network, at the end of a run."""
    prepare_to_compute(CLIENT_THREADS)
    client = _participant(message, context)
    return privacy.withheld_evaluation(adaptation.personalise_copy(message, client), client)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Report how good the model is on the client's test examples, as far as that can be told."""
    prepare_to_compute(CLIENT_THREADS)
    client = _participant(message, context)
    if isinstance(client.settings, GenerativeSettings):
        return generative.evaluate(message, client)
    reply = EVALUATORS.get(client.settings.strategy, evaluation.evaluate)(message, client)
    return privacy.withheld_evaluation(reply, client)


def _participant(message: Message, context: Context) -> Client:
    """Who is asked, if the run keeps what it and the client's owner promise."""
    client = identify(message, context)
    privacy.check(client)
    return client
