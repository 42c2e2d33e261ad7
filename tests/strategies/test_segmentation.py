"""Label maps through every method: one round of real clients and the real server on tiny scenes, three classes a pixel.

A picture is 16x24, its feature map 4x6. Some pixels are void.
"""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict
from torch import nn

from fmtda.adaptation.augment import mixup
from fmtda.adaptation.augment_scenes import SceneAugmentation
from fmtda.adaptation.batch_norm import reestimate
from fmtda.adaptation.layers import BatchNorm2d
from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.network import Network
from fmtda.adaptation.registry import build
from fmtda.adaptation.scores import accuracy_by_domain
from fmtda.domains.client import Client
from fmtda.domains.examples import Examples
from fmtda.domains.source import Source
from fmtda.protocol.records import config_record, from_record, to_record
from fmtda.protocol.seeds import generator_for
from fmtda.server.adaptation import check_counts
from fmtda.server.conversation import Answers, Cohort, admit
from fmtda.strategies.dualadapt.client import PERSONAL, UPLOADED, DualAdapt, localised, use_own_statistics
from fmtda.strategies.registry import algorithm

CLASSES, HEIGHT, WIDTH, FEATURES, PLACES = 3, 16, 24, 6, 10
ROUND = 2
NODES = {11: "dusk/0000", 12: "fog/0000"}
UPLOADS = {
    "dualadapt": {"classifier", "mixture"},
    "fedavg-self-training": {"model"},
    "fed-mcd": {"model"},
    "fed-dann": {"model"},
}


class FeaturesLast(nn.Module):
    def forward(self, maps):
        return maps.movedim(1, -1)


def tiny_dense(classes, input_shape):
    """Features at a quarter of the height and width."""
    convolution = nn.Conv2d(input_shape[0], FEATURES, kernel_size=4, stride=4, bias=False)
    feature_extractor = nn.Sequential(convolution, BatchNorm2d(FEATURES), nn.ReLU(), FeaturesLast())
    classifier = nn.Linear(FEATURES, classes)
    with torch.no_grad():
        classifier.weight.mul_(8)  # far apart, so that rounding decides no pixel
    return Network(feature_extractor, classifier, FEATURES)


TINY = f"{__name__}:{tiny_dense.__name__}"


@pytest.fixture
def settings_of(settings_of):
    """Few steps on scenes; a dictionary changes settings."""
    data = {"data.name": "streets", "data.classes": "road,car,sky", "data.input-shape": f"3x{HEIGHT}x{WIDTH}"}
    data["network.name"] = TINY

    def make(changes=None):
        given = {"strategy": "dualadapt", **(changes or {})}
        places = {f"{name}.places": PLACES for name in ("dualadapt", "fed-dann") if name == given["strategy"]}
        return settings_of({**data, **places, **given})

    return make


def scenes(count, seed):
    """Bands of light in noise, a class a band; a tenth of the pixels is void."""
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(0, 2, (count, 1, WIDTH), generator=generator)
    labels = ((torch.arange(HEIGHT)[None, :, None] + edges) * CLASSES // (HEIGHT + 1)).to(torch.int8)
    noise = torch.rand(count, 3, HEIGHT, WIDTH, generator=generator)
    images = (80 * labels[:, None] + 60 * noise).to(torch.uint8)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = -1
    return Examples(images, labels)


@pytest.fixture
def client_of(settings_of, tmp_path):
    def make(settings=None, name="dusk/0000", train=12, test=6):
        seed, settings = sum(name.encode()), settings or settings_of()
        unlabelled = scenes(train, seed).without_labels()
        return Client(name, settings, ROUND, tmp_path / name, unlabelled, scenes(test, seed + 1))

    return make


@pytest.fixture(scope="module")
def source():
    parts = (scenes(40, 0), scenes(8, 1), 5, SceneAugmentation(), True, True, None, torch.device("cpu"))
    return Source(*parts)


@dataclasses.dataclass
class Round:
    """What went to the clients, what came back, and what the server made of it."""

    sent: RecordDict
    uploads: dict[str, RecordDict]
    arrays: dict[str, torch.Tensor]
    metrics: dict[str, float]


@pytest.fixture
def played(source, client_of):
    """One round of a strategy with two clients, every reply checked as the round loop does."""

    def play(settings):
        network = build(settings.network.name, CLASSES, settings.shape, seed=0)
        its = algorithm(settings.strategy)
        strategy = its.server(settings, copy.deepcopy(network), source)
        strategy.arriving(NODES.values())
        arrays = strategy.initial(to_record(network.state_dict()))
        sent = list(strategy.configure_train(ROUND, arrays, config_record(settings, ROUND), Cohort(NODES)))
        replies = []
        for message in sent:
            message.metadata.__dict__["_message_id"] = str(message.metadata.dst_node_id)
            client = client_of(settings, NODES[message.metadata.dst_node_id])
            replies.append(its.train(message, client))
        phase = admit(Answers(replies, dict.fromkeys(NODES, 0)), NODES, strategy.check_upload, timeout=1.0)
        assert phase.failures == []
        new, metrics = strategy.aggregate_train(ROUND, list(phase.replies.values()))
        contents = {name: reply.content for name, reply in phase.replies.items()}
        return Round(sent[0].content, contents, from_record(new), dict(metrics))

    return play


def asked_to(what, client, model):
    content = RecordDict({"model": to_record(model), "config": config_record(client.settings, client.round)})
    return Message(content, dst_node_id=11, message_type=what)


def evaluated(client, model):
    message = asked_to("evaluate", client, model)
    counts = dict(algorithm(client.settings.strategy).evaluate(message, client).content["metrics"])
    check_counts(counts, CLASSES, segmentation=True)
    return counts


def pretrained(seed=0):
    return build(TINY, CLASSES, (3, HEIGHT, WIDTH), seed).state_dict()


def classifier_of(model):
    return {name.removeprefix("classifier."): value for name, value in model.items() if name.startswith("classifier.")}


def interpolation(coarse, fine):
    """The matrix (fine, coarse) of linear interpolation between centres of equal cells."""
    centres = np.clip((np.arange(fine) + 0.5) * coarse / fine - 0.5, 0, coarse - 1)
    return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(coarse)))


def probabilities(features, classifier):
    """Class probabilities of every pixel, (B, H, W, C), in numpy."""
    weight, bias = (classifier[name].double().numpy() for name in ("weight", "bias"))
    logits = features.detach().double().numpy() @ weight.T + bias
    rows, columns = interpolation(logits.shape[1], HEIGHT), interpolation(logits.shape[2], WIDTH)
    logits = np.einsum("yh,xw,bhwc->byxc", rows, columns, logits)
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def confusion(p, labels):
    """True class by predicted class over the pixels that are not void."""
    counts = np.zeros((CLASSES, CLASSES), dtype=int)
    known = labels.numpy() >= 0
    np.add.at(counts, (labels.numpy()[known], p.argmax(axis=-1)[known]), 1)
    return counts


def mean_iou(counts):
    right = np.diag(counts)
    return 100 * np.mean(right / (counts.sum(axis=0) + counts.sum(axis=1) - right))


@pytest.mark.parametrize("strategy", UPLOADS)
def test_a_round_of_every_strategy_moves_the_model_and_nothing_but_its_upload_leaves_a_client(
    strategy, settings_of, played
):
    done = played(settings_of({"strategy": strategy}))
    assert list(done.uploads) == list(NODES.values())
    for content in done.uploads.values():
        assert set(content) == {"client", "metrics"} | UPLOADS[strategy]
        assert content["metrics"]["num-examples"] == 12  # pictures
    before = from_record(done.sent["model"])
    assert done.arrays.keys() == before.keys()
    assert all(tensor.isfinite().all() for tensor in done.arrays.values())
    for name in ("feature_extractor.0.weight", "classifier.weight"):
        assert not torch.equal(done.arrays[name], before[name])


def test_dual_adapts_upload_has_the_layout_of_one_classifier_and_one_mixture_over_places(settings_of, played):
    for content in played(settings_of()).uploads.values():
        assert {name: tuple(array.shape) for name, array in content["classifier"].items()} == {
            "weight": (CLASSES, FEATURES),
            "bias": (CLASSES,),
        }
        components = 2  # of 12 x 10 places; of 12 pictures there would be one
        assert tuple(content["mixture"]["means"].shape) == (components, FEATURES)


def test_eq_6_is_taken_over_all_places_of_the_mixed_pictures(settings_of, played, source):
    settings = settings_of({"dualadapt.server-steps": 1, "dualadapt.server-batch": 4, "dualadapt.guard": False})
    done = played(settings)
    network = build(TINY, CLASSES, settings.shape, 0).eval()
    generator = generator_for(settings.seed, "server", ROUND, "server optimisation")
    (x_a, _), (x_b, _) = (source.draw(4, generator) for _ in range(2))
    total = 0.0
    with torch.no_grad():
        z = network.feature_extractor(mixup(x_a, x_b)).reshape(-1, FEATURES)
        for content in done.uploads.values():
            local = from_record(content["classifier"])
            mixture = Mixture.from_arrays({name: array.numpy() for name, array in content["mixture"].items()})
            p_g = network.classifier(z).softmax(dim=1)
            p_l = (z @ local["weight"].T + local["bias"]).softmax(dim=1)
            total += (mixture.typicality(z) * (p_g - p_l).abs().sum(dim=1) / CLASSES).sum().item()
    assert len(z) == 4 * (HEIGHT // 4) * (WIDTH // 4)
    assert total > 0
    assert done.metrics["alignment-loss"] == pytest.approx(total / len(z) / len(done.uploads), rel=1e-4)


def test_fine_tuning_is_cross_entropy_over_the_pixels_that_are_not_void(settings_of, played, source):
    settings = settings_of(
        {
            "dualadapt.server-steps": 1,
            "dualadapt.server-batch": 4,
            "dualadapt.guard": False,
            "dualadapt.align-learning-rate": 1e-30,
        }
    )
    done = played(settings)
    network = build(TINY, CLASSES, settings.shape, 0).train()
    generator = generator_for(settings.seed, "server", ROUND, "server optimisation")
    *_, (x_s, y_s) = (source.draw(4, generator) for _ in range(3))
    p = probabilities(network.feature_extractor(x_s), network.classifier.state_dict())
    known = y_s.numpy() >= 0
    expected = -np.log(np.take_along_axis(p, y_s.clamp(min=0).numpy()[..., None], axis=-1)[..., 0][known]).mean()
    assert 0 < known.mean() < 1
    assert done.metrics["fine-tuning-loss"] == pytest.approx(expected, rel=1e-4)


def test_the_guard_watches_the_pixels_that_are_not_void(settings_of, played, source):
    settings = settings_of()
    done = played(settings)
    network = build(TINY, CLASSES, settings.shape, 0).eval()
    inputs, labels = source.held_out(generator_for(settings.seed, "server", ROUND, "guard"))
    counts = confusion(probabilities(network.feature_extractor(inputs), network.classifier.state_dict()), labels)
    assert done.metrics["hold-out-accuracy-before"] == pytest.approx(100 * np.trace(counts) / counts.sum())
    assert done.metrics["guard-looks"] == 1


def test_evaluation_counts_every_pixel_that_is_not_void_as_numpy_does(settings_of, client_of, played):
    settings = settings_of({"preset": "paper"})
    played(settings)  # the client has trained
    client = client_of(settings)
    metrics = evaluated(client, pretrained())

    inputs = client.test.inputs.float() / 127.5 - 1
    features = build(TINY, CLASSES, settings.shape, 0).eval().feature_extractor(inputs)
    uploaded = client.kept(UPLOADED)["classifier"]
    p_g = probabilities(features, classifier_of(pretrained()))
    p_l = probabilities(features, uploaded)
    assert not np.array_equal(p_g, p_l)
    heads = {"global": p_g, "local": p_l, "mean": (p_g + p_l) / 2}
    expected = {head: confusion(p, client.test.labels) for head, p in heads.items()}
    for head, counts in expected.items():
        assert metrics[f"confusion-{head}"] == counts.flatten().tolist()
        assert metrics[f"correct-{head}"] == np.trace(counts)
    assert metrics["confusion"] == metrics["confusion-mean"]
    assert metrics["num-examples"] == int((client.test.labels >= 0).sum()) < client.test.labels.numel()
    assert metrics["agreement"] == pytest.approx((p_g.argmax(-1) == p_l.argmax(-1)).mean())
    assert metrics["entropy"] == pytest.approx(-(heads["mean"] * np.log(heads["mean"])).sum(-1).mean(), rel=1e-4)
    assert np.isfinite(metrics["log-likelihood"])
    accuracy = accuracy_by_domain({client.name: metrics})["dusk"]
    assert accuracy == {head: pytest.approx(mean_iou(counts), rel=1e-5) for head, counts in expected.items()}


@pytest.mark.parametrize("one_a_picture", [True, False], ids=["no maps", "void maps"])
def test_a_client_without_labels_tells_entropy_and_agreement_but_no_counts(one_a_picture, client_of, played):
    client = client_of()
    played(client.settings)
    void = torch.full_like(client.test.labels, -1)
    unlabelled = client.test.without_labels() if one_a_picture else Examples(client.test.inputs, void)
    metrics = evaluated(dataclasses.replace(client, test=unlabelled), pretrained())
    assert not [key for key in metrics if key.startswith(("correct", "confusion"))]
    assert 0 < metrics["entropy"] <= np.log(CLASSES) + 1e-6
    assert 0 <= metrics["agreement"] <= 1
    assert accuracy_by_domain({client.name: metrics}) == {}


def test_an_empty_test_share_is_evaluated_as_nothing(client_of):
    metrics = evaluated(client_of(test=0), pretrained())
    assert metrics.pop("seconds") >= 0
    assert metrics == {"num-examples": 0}


@pytest.mark.parametrize("strategy", UPLOADS)
def test_label_maps_of_the_training_part_change_no_upload(strategy, settings_of, client_of, played):
    settings = settings_of({"strategy": strategy})
    sent = played(settings).sent
    client = client_of(settings)
    labelled = dataclasses.replace(client, train=Examples(client.train.inputs, scenes(12, 5).labels))
    first, other = (
        algorithm(strategy).train(Message(sent, dst_node_id=11, message_type="train"), each).content
        for each in (client, labelled)
    )
    for record in UPLOADS[strategy]:
        arrays = from_record(first[record])
        assert all(torch.equal(tensor, arrays[name]) for name, tensor in from_record(other[record]).items())


def test_self_training_moves_the_head_and_the_scales_and_no_other_weight(settings_of, client_of):
    client = client_of(settings_of({"dualadapt.self-training.on": True}))
    message = asked_to("evaluate", client, pretrained())
    network = DualAdapt().received(message, client)
    use_own_statistics(network, client.inputs(client.train), client)
    local = localised(network, client)
    moved = {name for name, tensor in local.state_dict().items() if not torch.equal(tensor, pretrained()[name])}
    scales = {f"feature_extractor.1.{part}" for part in ("weight", "bias", "running_mean", "running_var")}
    assert moved == scales | {"classifier.weight", "classifier.bias"}


def test_a_personalised_copy_is_written_and_its_pixels_counted(settings_of, client_of):
    client = client_of(settings_of({"dualadapt.personalise.on": True}))
    content = DualAdapt().personalise(asked_to("train.personalise", client, pretrained()), client).content
    assert set(content) == {"client", "metrics"}
    metrics = dict(content["metrics"])
    check_counts(metrics, CLASSES, segmentation=True)
    assert metrics["kept"] in (0, 1)
    own = client.kept(PERSONAL)["network"]
    received = DualAdapt().received(asked_to("evaluate", client, pretrained()), client)
    networks = DualAdapt().predictor(received, client).networks
    assert all(torch.equal(value, own[name]) for name, value in networks["personal"].state_dict().items())
    inputs = client.inputs(client.test)[:]
    p_g, p_l, p_own = (
        probabilities(networks[name].feature_extractor(inputs), networks[name].classifier.state_dict())
        for name in ("global", "local", "personal")
    )
    counts = confusion(((p_g + p_l) / 2 + p_own) / 2, client.test.labels)
    assert metrics["confusion-personal"] == metrics["confusion"] == counts.flatten().tolist()


def test_adabn_predicts_with_the_clients_own_statistics(settings_of, client_of):
    client = client_of(settings_of({"strategy": "adabn"}))
    metrics = evaluated(client, pretrained())
    network = build(TINY, CLASSES, client.settings.shape, 0).eval()
    reestimate(network.feature_extractor, client.inputs(client.train), 1.0)
    p = probabilities(network.feature_extractor(client.inputs(client.test)[:]), network.classifier.state_dict())
    counts = confusion(p, client.test.labels)
    assert metrics["confusion-global"] == counts.flatten().tolist()


def test_fed_mcd_predicts_by_the_mean_of_both_classifiers_probabilities_at_full_size(settings_of, client_of):
    client = client_of(settings_of({"strategy": "fed-mcd"}))
    heads = [classifier_of(pretrained(seed)) for seed in (0, 1)]
    second = {f"second_classifier.{name}": tensor for name, tensor in heads[1].items()}
    metrics = evaluated(client, pretrained() | second)
    network = build(TINY, CLASSES, client.settings.shape, 0).eval()
    features = network.feature_extractor(client.inputs(client.test)[:])
    p = sum(probabilities(features, head) for head in heads) / 2
    assert metrics["confusion-global"] == confusion(p, client.test.labels).flatten().tolist()


def test_fed_dann_sends_features_of_random_places(settings_of, played):
    done = played(settings_of({"strategy": "fed-dann", "fed-dann.local-steps": 3, "fed-dann.local-batch": 4}))
    assert tuple(done.sent["source_features"]["features"].shape) == (3, 4 * PLACES, FEATURES)
    assert all(0 < content["metrics"]["domain-loss"] < 3 for content in done.uploads.values())
