"""Bad uploads leave the model as if that client had sent nothing, bit by bit, and are named with their client."""

import numpy as np
import pytest
import torch
from flwr.app import Array, Error, Message

from fmtda.adaptation.registry import build
from fmtda.protocol.records import LARGEST_VALUE, from_record, sender, to_record
from fmtda.server import checkpoints
from fmtda.server.app import run

pytestmark = pytest.mark.usefixtures("few_source_examples")

BAD = "pen/0000"


@pytest.fixture
def settings(small_run):
    return small_run()


def changed(record, name, change):
    """One of the uploaded records with one array changed."""

    def spoil(content):
        arrays = {key: value.numpy().copy() for key, value in content[record].items()}
        arrays[name] = change(arrays[name])
        content[record] = to_record({key: value for key, value in arrays.items() if value is not None})

    return spoil


def at_first(value):
    """The array with its first number replaced."""

    def change(array):
        array.flat[0] = value
        return array

    return change


def another_networks(content):
    content["classifier"] = to_record(build("mcd-digits", 10, (3, 32, 32), 0).classifier.state_dict())


def whole_networks(content):
    content["classifier"] = to_record({f"classifier.{key}": v for key, v in from_record(content["classifier"]).items()})


def junk(content):
    content["classifier"]["weight"] = Array(
        dtype="float32", shape=content["classifier"]["weight"].shape, stype="numpy.ndarray", data=bytes(100_000_000)
    )


def honest_junk(content):
    content["mixture"]["means"] = Array(torch.zeros(25_000_000).numpy())


KINDS = {
    "NaN in the classifier": (
        changed("classifier", "weight", at_first(np.nan)),
        "weight has values that are not finite",
    ),
    "NaN in the mixture": (changed("mixture", "means", at_first(np.nan)), "means has values that are not finite"),
    "infinite": (changed("classifier", "bias", at_first(-np.inf)), "bias has values that are not finite"),
    "too large": (changed("classifier", "weight", at_first(2 * LARGEST_VALUE)), "weight has values over 1e+06 in size"),
    "turned": (changed("classifier", "weight", np.transpose), "weight is float32[128, 10], expected float32[10, 128]"),
    "double": (changed("classifier", "bias", np.float64), "bias is float64[10], expected float32[10]"),
    "missing array": (changed("classifier", "bias", lambda _: None), "missing arrays ['bias']"),
    "missing record": (lambda content: content.pop("mixture"), "holds the records ['classifier', 'client', 'metrics']"),
    "negative variance": (changed("mixture", "variances", at_first(-1.0)), "mixture has the variance -1"),
    "weights over one": (changed("mixture", "weights", lambda w: w + 1), "mixture weights sum to"),
    "another network": (another_networks, "unexpected arrays"),
    "another network's names": (whole_networks, "unexpected arrays ['classifier.bias', 'classifier.weight']"),
    "100 MB of junk": (junk, "weight carries 100000000 bytes, expected about 5120"),
    "100 MB, honestly declared": (honest_junk, "means is float32[25000000]"),
}


def spoiled(spoil):
    """The bad client's training replies, spoiled."""

    def tamper(sent, honest):
        if sent.metadata.message_type == "train" and not honest.has_error() and sender(honest.content) == BAD:
            return spoil(sent, honest)
        return honest

    return tamper


def result(settings, grid_of, silence, spoil):
    directory = run(grid_of.simulated(3, tamper=spoiled(spoil)), settings, silence)
    return directory.metrics()[-1], checkpoints.latest(directory.checkpoints).model


@pytest.fixture(scope="module")
def without_it():
    """The model of the run in which the bad client sends nothing; filled by the first test."""
    return {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_upload_is_as_good_as_none(kind, settings, grid_of, silence, without_it, tmp_path):
    if not without_it:
        nothing = settings.changed({"output": str(tmp_path / "nothing")})
        _, model = result(nothing, grid_of, silence, lambda sent, _: Message(Error(1, "nothing"), reply_to=sent))
        without_it.update(model)
        _, honest = result(settings.changed({"output": str(tmp_path / "h")}), grid_of, silence, lambda _, reply: reply)
        assert any(not torch.equal(honest[name], array) for name, array in without_it.items())
    spoil, reason = KINDS[kind]

    def bad(sent, honest):
        spoil(honest.content)
        return honest

    line, model = result(settings, grid_of, silence, bad)
    (failure,) = line["failures"]
    assert failure.startswith(f"{BAD}: dropped, ")
    assert reason in failure
    assert line["clients"][BAD]["train"] == {}
    assert list(model) == list(without_it)
    assert all(torch.equal(model[name], array) for name, array in without_it.items())
