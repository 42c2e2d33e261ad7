"""Answers each kind of message as the Flower ClientApp; what a client does, its run's algorithm says."""

from functools import partial
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fmtda.clients import illustration, promises
from fmtda.clients.identity import identify
from fmtda.domains.client import Client
from fmtda.domains.kept_model import keep_model, keeping_whole
from fmtda.protocol.records import reply_to
from fmtda.protocol.runtime import prepare_to_compute
from fmtda.protocol.settings import AdaptationSettings
from fmtda.strategies.algorithm import Algorithm, received
from fmtda.strategies.registry import algorithm

CLIENT_THREADS = 1
"""Everywhere, so that simulation and deployment agree bit by bit."""

app = ClientApp()


@app.query()
def introduce(message: Message, context: Context) -> Message:
    """Say who this client is, how much it holds, and whether it agrees to show examples."""
    client = _asked(message, context)
    held = {"train-examples": len(client.train), "test-examples": len(client.test)}
    return reply_to(message, client.name, {**held, "shares-examples": int(client.shares_examples)})


@app.query("join")
def join(message: Message, context: Context) -> Message:
    """Introduce this client to a federation under way."""
    client, its_algorithm = _participant(message, context)
    return promises.withheld(its_algorithm.join(message, client), client)


@app.query("illustrate")
def illustrate(message: Message, context: Context) -> Message:
    """Show a few examples for the run's report, where the client's owner has agreed."""
    client = _asked(message, context)
    return illustration.illustrate(message, client, algorithm(client.settings.strategy))


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train as the run's algorithm wants it."""
    client, its_algorithm = _participant(message, context)

    def trained(message: Message, context: Context) -> Message:
        return promises.withheld(its_algorithm.train(message, client), client)

    call = trained
    for mod in reversed(its_algorithm.mods):
        call = partial(mod, call_next=call)
    with keeping_whole(client):
        return call(message, context)


@app.train("personalise")
def personalise(message: Message, context: Context) -> Message:
    """Train and keep the client's own copy of the network, at the end of a run."""
    client, its_algorithm = _participant(message, context)
    return promises.withheld_evaluation(
        _remembered(message, its_algorithm.personalise(message, client), client), client
    )


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Report how good the model is on the client's test examples, as far as that can be told."""
    client, its_algorithm = _participant(message, context)
    return promises.withheld_evaluation(_remembered(message, its_algorithm.evaluate(message, client), client), client)


@app.evaluate("global")
def evaluate_global(message: Message, context: Context) -> Message:
    """Report how good G and F_g are as they came, with nothing of the client's own."""
    client, _ = _participant(message, context)
    return promises.withheld_evaluation(AsItCame().evaluate(message, client), client)


class AsItCame(Algorithm):
    """Predicts by F_g on G as a message brought them, with no algorithm."""

    name = "as it came"

    def server(self, *_: Any) -> Any:
        raise RuntimeError("this has no server's side")


def _asked(message: Message, context: Context) -> Client:
    prepare_to_compute(CLIENT_THREADS)
    return identify(message, context)


def _remembered(message: Message, reply: Message, client: Client) -> Message:
    """The reply to a message whose model the client has predicted with, and keeps if it classifies."""
    if client.settings.kind == AdaptationSettings.kind and not client.simulated:
        keep_model(client, received(message))
    return reply


def _participant(message: Message, context: Context) -> tuple[Client, Any]:
    """Who is asked, and its run's algorithm, if the run keeps what it and the client's owner promise."""
    client = _asked(message, context)
    its_algorithm = algorithm(client.settings.strategy)
    its_algorithm.check_client(client)
    if client.settings.private or client.epsilon_limit is not None:
        promises.check(client, its_algorithm)
    return client, its_algorithm
