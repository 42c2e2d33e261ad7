"""What a client shows of itself: features and predictions before and after, or nothing at all."""

import dataclasses

import pytest
import torch

from fmtda.adaptation.registry import build
from fmtda.clients.illustration import illustrate
from fmtda.domains.examples import DataError
from fmtda.protocol.illustration import PICTURES, check_illustration
from fmtda.protocol.records import check_records, from_record, to_record
from fmtda.strategies.dualadapt.client import DualAdapt


def asked(client, message_to):
    message = message_to(client, "query.illustrate")
    message.content["pretrained"] = to_record(build("small-cnn", 10, (3, 32, 32), 1).state_dict())
    return message


@pytest.fixture
def client(client_of, message_to):
    """A client that has trained and evaluated, and agrees to show examples."""
    client = dataclasses.replace(client_of(), shares_examples=True)
    DualAdapt().train(message_to(client), client)
    DualAdapt().evaluate(message_to(client, "evaluate"), client)
    return client


def test_who_has_not_agreed_refuses(client, message_to):
    silent = dataclasses.replace(client, shares_examples=False)
    with pytest.raises(DataError, match="pen/0000 shares no examples"):
        illustrate(asked(client, message_to), silent, DualAdapt())


def test_before_is_the_pre_trained_network_and_after_what_the_client_predicts_with(client, message_to):
    message = asked(client, message_to)
    content = illustrate(message, client, DualAdapt()).content
    check_records(content, "illustration")
    check_illustration(content["illustration"], 10, 128, (3, 32, 32))
    shown = from_record(content["illustration"])
    assert len(shown["pictures"]) == PICTURES

    after = DualAdapt().predictor(DualAdapt().received(message, client), client)
    before = build("small-cnn", 10, (3, 32, 32), 1).eval()
    test = client.inputs(client.test)[:]
    order = torch.randperm(len(client.test), generator=client.generator("illustration"))
    with torch.no_grad():
        probabilities = {"before": before(test).softmax(dim=1), "after": after(test)}
        extractors = {"before": before, "after": after.networks["local"]}
        for name, network in extractors.items():
            features = network.feature_extractor(test)[order]
            torch.testing.assert_close(shown[f"features-{name}"], features, rtol=1e-4, atol=1e-5)
    for name, p in probabilities.items():
        confidence, predicted = p[order[:PICTURES]].max(dim=1)
        assert torch.equal(shown[f"predicted-{name}"].long(), predicted)
        torch.testing.assert_close(shown[f"confidence-{name}"], confidence)
    assert torch.equal(shown["labels"].long(), client.test.labels[order[:PICTURES]])
    assert not torch.equal(shown["features-before"], shown["features-after"])
