"""DualAdapt on a client: what leaves it, what that depends on, what it never depends on, and how it predicts."""

import dataclasses

import pytest
import torch

from fmtda.adaptation.batch_norm import reestimate
from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.registry import build
from fmtda.adaptation.self_training import SHARES
from fmtda.domains.examples import Examples
from fmtda.protocol.records import from_record, to_record
from fmtda.strategies.dualadapt.client import LOCALISED, PERSONAL, UPLOADED, DualAdapt, use_own_statistics
from fmtda.strategies.dualadapt.client import localised as localised_network
from fmtda.strategies.dualadapt.server import SOURCE_MIXTURE
from tests.strategies.uploads import RELABELLINGS, relabelled, same_bits, upload


@pytest.mark.parametrize("relabelling", RELABELLINGS)
def test_the_personalised_copy_does_not_depend_on_target_labels(relabelling, settings_of, client_of, message_to):
    client = client_of(settings_of({"dualadapt.personalise.on": True}))
    other = relabelled(client, RELABELLINGS[relabelling])
    copies = []
    for each in (client, other):
        DualAdapt().train(message_to(each), each)
        DualAdapt().personalise(message_to(each, "train.personalise"), each)
        copies.append(each.kept(PERSONAL)["network"])
    assert same_bits(*copies)
    sent = from_record(message_to(client).content["model"])
    assert not same_bits(copies[0], sent)  # it did train


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_exactly_the_classifier_and_the_mixture_leave_a_client(preset, settings_of, client_of, message_to):
    client = client_of(settings_of({"preset": preset}))
    content = DualAdapt().train(message_to(client), client).content
    classifier = build("small-cnn", 10, (3, 32, 32), 0).classifier
    assert set(content) == {"client", "metrics", "classifier", "mixture"}
    assert dict(content["client"]) == {"name": "pen/0000"}
    assert {n: tuple(a.shape) for n, a in content["classifier"].items()} == {
        n: tuple(t.shape) for n, t in classifier.state_dict().items()
    }
    assert set(content["mixture"]) == {"weights", "means", "variances", "quantiles"}


def test_metrics_of_training_hold_numbers_and_how_usual_the_examples_are_but_nothing_of_labels(client_of, message_to):
    client = client_of()
    metrics = dict(DualAdapt().train(message_to(client), client).content["metrics"])
    assert metrics["num-examples"] == 24
    assert metrics["seconds"] > 0
    assert [key for key, value in metrics.items() if isinstance(value, list)] == ["source-typicality-counts"]
    counts = metrics["source-typicality-counts"]
    assert len(counts) == 10 and sum(counts) == 24
    middles = sum(count * (place + 0.5) / 10 for place, count in enumerate(counts)) / 24
    assert metrics["source-typicality"] == pytest.approx(middles, abs=0.05)
    assert not [key for key in metrics if "correct" in key or "accuracy" in key]


def test_eq_5_moves_the_classifier_where_pictures_look_like_the_source(settings_of, client_of, message_to):
    client = client_of(settings_of({"preset": "paper"}))
    message = message_to(client)
    sent = from_record(message.content["model"])
    assert not torch.equal(upload(message, client)["classifier.weight"], sent["classifier.weight"])


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_cached_features_give_the_uploads_of_recomputed_ones(preset, settings_of, client_of, message_to):
    kept, anew = (
        client_of(settings_of({"preset": preset, "dualadapt.cache-features": cached})) for cached in (True, False)
    )
    first, second = upload(message_to(kept), kept), upload(message_to(anew), anew)
    assert first.keys() == second.keys()
    for name in first:
        # A log-likelihood sums 128 terms divided by small variances: rounding of features counts for more there.
        rtol = 1e-4 if name == "mixture.quantiles" else 1e-5
        torch.testing.assert_close(first[name], second[name], rtol=rtol, atol=1e-6)


def localised(message, client):
    """G, F_g and F_l as the client predicts with them."""
    network = DualAdapt().received(message, client)
    use_own_statistics(network, client.inputs(client.train), client)
    return network, localised_network(network, client).classifier


def test_paper_keeps_the_servers_batch_norm_statistics_and_default_does_not(settings_of, client_of, message_to):
    for preset, own in (("paper", False), ("default", True)):
        client = client_of(settings_of({"preset": preset}), folder=preset)
        DualAdapt().train(message_to(client), client)
        message = message_to(client, "evaluate")
        network, _ = localised(message, client)
        sent = from_record(message.content["model"])
        changed = [name for name, value in network.state_dict().items() if not torch.equal(value, sent[name])]
        assert bool(changed) is own
        assert all("running" in name or name.endswith(("weight", "bias")) for name in changed)


def test_without_self_training_a_client_evaluates_with_what_it_uploaded(settings_of, client_of, message_to):
    client = client_of(settings_of({"dualadapt.self-training.on": False}))
    sent = upload(message_to(client), client)
    _, classifier = localised(message_to(client, "evaluate"), client)
    assert torch.equal(classifier.weight, sent["classifier.weight"])


def test_self_training_changes_head_and_scales_on_the_client_alone(settings_of, client_of, message_to):
    client = client_of(settings_of({"dualadapt.self-training.on": True}))
    sent = upload(message_to(client), client)
    message = message_to(client, "evaluate")
    model = from_record(message.content["model"])
    network, classifier = localised(message, client)
    assert not torch.equal(classifier.weight, sent["classifier.weight"])
    state = network.state_dict()
    assert torch.equal(state["classifier.weight"], model["classifier.weight"])  # F_g stays
    assert torch.equal(state["feature_extractor.1.weight"], model["feature_extractor.1.weight"])  # so do convolutions
    assert not torch.equal(state["feature_extractor.2.weight"], model["feature_extractor.2.weight"])  # a scale
    assert {path.name for path in client.folder.iterdir()} == {"uploaded.safetensors", "localised.safetensors"}


def test_f_g_is_evaluated_before_self_training_touches_g(settings_of, client_of, message_to):
    correct = []
    for self_train in (False, True):
        client = client_of(settings_of({"dualadapt.self-training.on": self_train}), folder=str(self_train))
        DualAdapt().train(message_to(client), client)
        metrics = evaluated(message_to(client, "evaluate"), client)
        correct.append((metrics["correct-global"], metrics["log-likelihood"]))
    assert correct[0] == correct[1]


def test_own_statistics_count_for_their_share_at_most(settings_of, client_of):
    client = client_of(settings_of({"dualadapt.batch-norm.share": 0.5, "dualadapt.batch-norm.prior": 10.0}))
    inputs = client.inputs(client.train)
    server, mixed, alone = (build("small-cnn", 10, (3, 32, 32), 0).eval() for _ in range(3))
    use_own_statistics(mixed, inputs, client)
    reestimate(alone.feature_extractor, inputs, 1.0)
    largest = 0.5 * len(inputs) / (len(inputs) + 10)
    means = [network.feature_extractor[2].running_mean for network in (server, mixed, alone)]
    mixtures = [means[0].lerp(means[2], share * largest) for share in SHARES]
    assert any(torch.equal(means[1], mixture) for mixture in mixtures)


def predictor(message, client):
    """What it predicts with out of its folder, as the report, predictions and exports have it."""
    return DualAdapt().predictor(DualAdapt().received(message, client), client)


def evaluated(message, client):
    return dict(DualAdapt().evaluate(message, client).content["metrics"])


def test_evaluation_counts_what_a_person_would_count(settings_of, client_of, message_to):
    client = client_of(settings_of({"preset": "paper"}))
    DualAdapt().train(message_to(client), client)
    message = message_to(client, "evaluate")
    metrics = evaluated(message, client)

    network, local = localised(message, client)
    mixture = Mixture(**client.kept(UPLOADED)["mixture"])
    assert client.settings.inputs.standardise is False
    z = network.feature_extractor(client.test.inputs.float() / 127.5 - 1)
    p_g, p_l = network.classifier(z).softmax(dim=1), local(z).softmax(dim=1)
    labels = client.test.labels
    for head, p in (("global", p_g), ("local", p_l), ("mean", (p_g + p_l) / 2)):
        assert metrics[f"correct-{head}"] == int((p.argmax(dim=1) == labels).sum())
    confusion = torch.zeros(10, 10, dtype=torch.int64)
    for true, predicted in zip(labels, ((p_g + p_l) / 2).argmax(dim=1), strict=True):
        confusion[true, predicted] += 1
    assert metrics["confusion"] == confusion.flatten().tolist()
    assert metrics["num-examples"] == 12
    assert metrics["agreement"] == pytest.approx((p_g.argmax(1) == p_l.argmax(1)).float().mean().item())
    assert metrics["log-likelihood"] == pytest.approx(mixture.log_likelihood(z).mean().item(), rel=1e-4)


def test_a_client_without_labels_reports_entropy_agreement_and_likelihood_but_no_correct_count(client_of, message_to):
    client = relabelled(client_of(), RELABELLINGS["unknown"])
    DualAdapt().train(message_to(client), client)
    metrics = evaluated(message_to(client, "evaluate"), client)
    assert not [key for key in metrics if key.startswith("correct") or key == "confusion"]
    assert metrics["num-examples"] == 12
    assert 0 < metrics["entropy"] <= 2.3026
    assert 0 <= metrics["agreement"] <= 1
    assert torch.tensor(metrics["log-likelihood"]).isfinite()


def test_only_labelled_examples_count_where_some_labels_are_unknown(client_of, message_to):
    client = client_of()
    DualAdapt().train(message_to(client), client)
    whole = evaluated(message_to(client, "evaluate"), client)

    def half(labels):
        return torch.where(torch.arange(len(labels)) % 2 == 0, labels, -1)

    partly = dataclasses.replace(client, test=Examples(client.test.inputs, half(client.test.labels)))
    metrics = evaluated(message_to(partly, "evaluate"), partly)
    assert metrics["num-examples"] == sum(metrics["confusion"]) == 6
    assert metrics["entropy"] == pytest.approx(whole["entropy"])


def test_an_empty_test_share_is_evaluated_as_nothing(client_of, message_to):
    client = client_of(test=0)
    DualAdapt().train(message_to(client), client)
    metrics = evaluated(message_to(client, "evaluate"), client)
    assert metrics.pop("seconds") >= 0
    assert metrics == {"num-examples": 0}


@pytest.mark.parametrize("way", [{"preset": "default"}, {"preset": "paper"}, {"dualadapt.cache-features": False}])
@pytest.mark.parametrize("examples", [1, 2, 9])
def test_a_client_with_next_to_nothing_trains_personalises_and_evaluates(
    way, examples, settings_of, client_of, message_to
):
    client = client_of(settings_of({**way, "dualadapt.personalise.on": True}), train=examples, test=1)
    received = upload(message_to(client), client)
    assert all(tensor.isfinite().all() for tensor in received.values())
    arrays = {name.removeprefix("mixture."): t.numpy() for name, t in received.items() if "mixture." in name}
    assert len(Mixture.from_arrays(arrays).weights) == 1
    DualAdapt().personalise(message_to(client, "train.personalise"), client)
    assert evaluated(message_to(client, "evaluate"), client)["num-examples"] == 1


def test_a_client_that_lost_its_folder_starts_from_the_global_classifier(settings_of, client_of, message_to):
    client = client_of(settings_of({"preset": "paper"}))
    metrics = evaluated(message_to(client, "evaluate"), client)
    assert metrics["correct-local"] == metrics["correct-mean"] == metrics["correct-global"]
    assert metrics["agreement"] == 1
    assert "log-likelihood" not in metrics
    assert sum(metrics["confusion"]) == 12


def test_a_client_that_lost_its_folder_personalises_from_the_global_classifier(client_of, message_to):
    client = client_of()
    reply = DualAdapt().personalise(message_to(client, "train.personalise"), client)
    assert "correct-personal" in reply.content["metrics"]


def test_evaluation_uploads_numbers_only(client_of, message_to):
    client = client_of()
    DualAdapt().train(message_to(client), client)
    content = DualAdapt().evaluate(message_to(client, "evaluate"), client).content
    assert set(content) == {"client", "metrics"}


@pytest.mark.parametrize("cached", [True, False])
def test_rounding_alone_never_moves_the_local_classifier(cached, settings_of, client_of, message_to):
    """Where no example is typical of the source, Eq. 5 at F_l = F_g has only the L1 left, whose gradient there is 0."""
    client = client_of(
        settings_of({"preset": "paper", "dualadapt.cache-features": cached, "dualadapt.client-steps": 10})
    )
    message = message_to(client)
    far = Mixture(torch.ones(1), torch.full((1, 128), 1e4), torch.ones(1, 128), torch.linspace(-2, -1, 33))
    message.content["source_mixture"] = to_record(far.arrays())
    received = upload(message, client)
    sent = from_record(message.content["model"])
    for name in ("weight", "bias"):
        assert torch.equal(received[f"classifier.{name}"], sent[f"classifier.{name}"])


def test_the_statistics_it_evaluated_with_are_those_it_would_choose_anew(
    settings_of, client_of, message_to, monkeypatch
):
    monkeypatch.setattr("fmtda.adaptation.self_training.SHARES", (1.0,))  # random weights may choose none
    client = client_of(settings_of())
    message = message_to(client, "evaluate")
    DualAdapt().evaluate(message, client)
    kept = predictor(message, client).networks["global"].state_dict()
    client.forget(LOCALISED)
    anew = predictor(message, client).networks["global"].state_dict()
    received = DualAdapt().received(message, client).state_dict()
    assert all(torch.equal(value, anew[name]) for name, value in kept.items())
    assert not torch.equal(received["feature_extractor.2.running_mean"], kept["feature_extractor.2.running_mean"])


def test_at_the_end_a_client_predicts_with_what_localise_left_and_with_its_own_copy(settings_of, client_of, message_to):
    client = client_of(settings_of({"dualadapt.personalise.on": True}))
    message = message_to(client, "evaluate")
    DualAdapt().evaluate(message, client)
    heads = predictor(message, client).networks
    assert list(heads) == ["global", "local"], "personalised copies come last"
    localised = client.kept(LOCALISED)["classifier"]
    assert all(torch.equal(value, localised[name]) for name, value in heads["local"].classifier.state_dict().items())
    own = {name: value + 1 for name, value in heads["global"].state_dict().items()}
    client.keep(PERSONAL, network=own)
    with_copy = predictor(message, client).networks
    assert list(with_copy) == ["global", "local", "personal"]
    for name, state in {"personal": own, "local": heads["local"].state_dict()}.items():
        assert all(torch.equal(value, state[key]) for key, value in with_copy[name].state_dict().items())


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_what_it_evaluated_with_predicts_again_out_of_the_folder(preset, settings_of, client_of, message_to):
    client = client_of(settings_of({"preset": preset}))
    DualAdapt().train(message_to(client), client)
    message = message_to(client, "evaluate")
    evaluated_with, again = DualAdapt().adapt(message, client), predictor(message, client)
    inputs = client.inputs(client.test)[:]
    first, second = evaluated_with.by_head(inputs), again.by_head(inputs)
    assert list(first) == list(second) == ["global", "local", "mean"]
    # Self-training changed the scales of the G of F_l alone.
    assert all(torch.equal(first[head], second[head]) for head in first)
    assert torch.equal(evaluated_with.mixture.means, again.mixture.means)
    assert again.parts == "F_g and F_l with the BatchNorm statistics of pen/0000"


def test_where_the_folder_is_elsewhere_the_last_upload_serves_and_it_is_said(settings_of, client_of, message_to):
    client = client_of(settings_of({"preset": "paper"}))
    sent = upload(message_to(client), client)
    message = message_to(client, "evaluate")
    on_the_server = dataclasses.replace(client, folder=client.folder / "nothing", elsewhere=client.folder)
    found = predictor(message, on_the_server)
    assert torch.equal(found.networks["local"].classifier.weight, sent["classifier.weight"])
    assert torch.equal(found.mixture.means, sent["mixture.means"])
    assert "F_l as pen/0000 last uploaded it" in found.parts
    lost = predictor(message, dataclasses.replace(client, folder=client.folder / "nothing"))
    assert lost.heads == ("global",) and lost.mixture is None
    assert lost.parts == "F_g alone: nothing of pen/0000 is here; name its folder with --local"


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_adapting_outside_a_federation_is_one_more_round_of_a_client(preset, settings_of, client_of, message_to):
    settings = settings_of({"preset": preset, "dualadapt.personalise.on": True})
    inside, outside = (client_of(settings, folder=folder) for folder in ("inside", "outside"))
    message = message_to(inside)
    DualAdapt().train(message, inside)
    DualAdapt().evaluate(message_to(inside, "evaluate"), inside)
    DualAdapt().personalise(message_to(inside, "train.personalise"), inside)
    closing = {SOURCE_MIXTURE: from_record(message.content["source_mixture"])}
    DualAdapt().adapt_outside(lambda: DualAdapt().received(message, outside), closing, outside, personalise=True)
    for file in (UPLOADED, LOCALISED, PERSONAL):
        kept, expected = outside.kept(file), inside.kept(file)
        assert kept.keys() == expected.keys()
        assert all(same_bits(kept[group], expected[group]) for group in kept)
