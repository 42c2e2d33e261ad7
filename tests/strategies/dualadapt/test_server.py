"""DualAdapt on the server: Eq. 6 against plain Python, the guard, and what it accepts as an upload."""

import copy

import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from torch import nn

from fmtda.adaptation.augment import prepare
from fmtda.adaptation.augment_digits import DigitAugmentation
from fmtda.adaptation.mixture import Mixture, fit
from fmtda.adaptation.network import Network
from fmtda.adaptation.registry import build
from fmtda.domains.examples import Examples
from fmtda.domains.source import Source
from fmtda.protocol.records import BadReply, config_record, from_record, to_record
from fmtda.protocol.seeds import generator_for
from fmtda.server.conversation import Answers, Cohort, admit
from fmtda.server.pretraining import pretrain
from fmtda.strategies.dualadapt.client import DualAdapt
from fmtda.strategies.dualadapt.server import (
    GUARD_INTERVAL,
    GUARD_TOLERANCE,
    JOIN,
    START,
    DualAdaptServer,
    _Clients,
    _Guard,
)

ROUND = 6
SHAPE = (3, 8, 8)
COHORT = Cohort({30: "pen/0000", 10: "pen/0001", 20: "street/0000"})


def bars(count, seed):
    """Ten easy classes: the place of a light bar, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (count,), generator=generator)
    images = 60 * torch.rand(count, *SHAPE, generator=generator)
    for image, label in zip(images, labels, strict=True):
        if label < 8:
            image[:, :, label] += 180
        else:
            image[:, 2 * int(label) - 16 : 2 * int(label) - 13] += 180
    return images.to(torch.uint8), labels


@pytest.fixture(scope="module")
def source():
    images, labels = bars(300, seed=0)
    trained, watched = Examples(images[:240], labels[:240]), Examples(images[240:], labels[240:])
    return Source(trained, watched, 600, DigitAugmentation(), True, False, None, torch.device("cpu"))


@pytest.fixture(scope="module")
def trained(source):
    network = build("small-cnn", 10, SHAPE, 0)
    pretrain(
        network,
        source,
        steps=60,
        batch_size=32,
        learning_rate=2e-3,
        weight_decay=0.0,
        generator=torch.Generator().manual_seed(0),
    )
    return network.eval()


@pytest.fixture
def network(trained):
    return copy.deepcopy(trained)


@pytest.fixture
def uploads(trained, source):
    """Three clients' classifiers, each another way off F_g, and mixtures of different sizes over their features."""
    contents = []
    for number, components in enumerate((1, 2, 3)):
        generator = torch.Generator().manual_seed(number)
        classifier = {
            name: value + 0.1 * torch.randn(value.shape, generator=generator)
            for name, value in trained.classifier.state_dict().items()
        }
        with torch.no_grad():
            inputs = source.batch(torch.arange(80 * number, 80 * (number + 1)), generator)[0]
            z = trained.feature_extractor(inputs + 0.1 * number)
        records = {
            "client": ConfigRecord({"name": f"pen/{number:04d}"}),
            "metrics": MetricRecord({"num-examples": 80, "seconds": 0.1}),
            "classifier": to_record(classifier),
            "mixture": to_record(fit(z, components, number).arrays()),
        }
        contents.append(RecordDict(records))
    return contents


def messages(contents):
    return [Message(content, dst_node_id=1, message_type="train") for content in contents]


def slow_round(network, source, settings, uploads):
    """Lines 14-18 once, client by client, without anything stacked; returns the weights and the two losses."""
    own, network = settings.algorithm, copy.deepcopy(network)
    generator = generator_for(settings.seed, "server", ROUND, "server optimisation")
    align = torch.optim.Adam(network.feature_extractor.parameters(), lr=own.align_learning_rate)
    finetune = torch.optim.AdamW(network.parameters(), lr=own.finetune_learning_rate, weight_decay=own.weight_decay)
    x_a, _ = source.draw(own.server_batch, generator)
    x_b, _ = source.draw(own.server_batch, generator)
    network.eval()
    z = network.feature_extractor((x_a + x_b) / 2)
    p_g = network.classifier(z).softmax(dim=1)
    total = 0.0
    for upload in uploads:
        local = copy.deepcopy(network.classifier)
        local.load_state_dict(from_record(upload["classifier"]))
        p_l = local(z).softmax(dim=1)
        mixture = Mixture.from_arrays({name: array.numpy() for name, array in upload["mixture"].items()})
        weight = mixture.typicality(z.detach())
        for b in range(own.server_batch):
            distance = sum((p_g[b, c] - p_l[b, c]).abs() for c in range(10)) / 10
            total = total + weight[b] * distance / own.server_batch / len(uploads)
    align.zero_grad()
    total.backward()
    align.step()

    x_s, y_s = source.draw(own.server_batch, generator)
    network.train()
    cross_entropy = nn.functional.cross_entropy(network(x_s), y_s)
    finetune.zero_grad()
    cross_entropy.backward()
    finetune.step()
    return network.state_dict(), total.item(), cross_entropy.item()


# An Adam step is nearly the sign of the gradient, which rounding can turn where it is tiny: so one of the two steps
# at a time is made too small to see.
@pytest.mark.parametrize("rates", [(1e-3, 1e-30), (1e-30, 1e-3)], ids=["Eq. 6", "fine-tuning"])
def test_a_server_step_is_the_one_that_plain_python_computes(rates, settings_of, network, source, uploads):
    settings = settings_of(
        {
            "dualadapt.guard": False,
            "dualadapt.server-steps": 1,
            "dualadapt.server-batch": 16,
            "dualadapt.align-learning-rate": rates[0],
            "dualadapt.finetune-learning-rate": rates[1],
            "dualadapt.weight-decay": 0.1,
        }
    )
    before = copy.deepcopy(network.state_dict())
    expected, alignment, cross_entropy = slow_round(network, source, settings, uploads)
    arrays, metrics = DualAdaptServer(settings, network, source).aggregate_train(ROUND, messages(uploads))
    after = from_record(arrays)
    assert alignment > 1e-3
    assert metrics["alignment-loss"] == pytest.approx(alignment, rel=1e-5)
    assert metrics["fine-tuning-loss"] == pytest.approx(cross_entropy, rel=1e-5)
    moved = 0.0
    for name, tensor in expected.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-5, atol=2e-5)
        moved = max(moved, (after[name] - before[name]).abs().max().item())
    assert moved > 5e-4


def test_eq_6_leaves_the_classifier_alone(settings_of, network, source, uploads):
    settings = settings_of(
        {
            "dualadapt.guard": False,
            "dualadapt.server-steps": 3,
            "dualadapt.finetune-learning-rate": 1e-30,
            "dualadapt.weight-decay": 0,
        }
    )
    before = copy.deepcopy(network.state_dict())
    after = from_record(DualAdaptServer(settings, network, source).aggregate_train(ROUND, messages(uploads))[0])
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("classifier"))
    assert not all(torch.equal(after[name], before[name]) for name in before)


def test_no_server_steps_leave_every_bit_alone(settings_of, network, source, uploads):
    before = copy.deepcopy(network.state_dict())
    strategy = DualAdaptServer(settings_of({"dualadapt.server-steps": 0}), network, source)
    after = from_record(strategy.aggregate_train(ROUND, messages(uploads))[0])
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_aligning_brings_the_global_classifier_nearer_to_the_clients(settings_of, network, source, uploads):
    settings = settings_of(
        {
            "dualadapt.guard": True,
            "dualadapt.server-steps": 20,
            "dualadapt.server-batch": 32,
            "dualadapt.align-learning-rate": 1e-4,
        }
    )
    _, metrics = DualAdaptServer(settings, network, source).aggregate_train(ROUND, messages(uploads))
    assert metrics["discrepancy"] < metrics["discrepancy-before"]
    assert metrics["guard-looks"] == 20 / GUARD_INTERVAL


def joined(strategy, late):
    """The strategy after the rounds in which clients joined, by name; `joining.rounds` is 3."""
    strategy.newcomers.joined = {**dict.fromkeys(("pen/0000", "pen/0001", "pen/0002"), 0), **late}
    return strategy


def test_members_are_sent_what_was_meant_for_all_and_newcomers_a_start_or_a_question(settings_of, network, source):
    settings = settings_of()
    strategy = joined(DualAdaptServer(settings, network, source), {"street/0001": 2})
    start = {"weight": torch.ones(2)}
    strategy.newcomers.starts = {"street/0001": start}
    cohort = Cohort({1: "pen/0000", 2: "street/0001", 3: "street/0002"})
    assert strategy.arriving(list(cohort.names.values())) == {"street/0002"}
    model, config = to_record(network.state_dict()), config_record(settings, 3)
    sent = list(strategy.configure_train(3, model, config, cohort))
    assert [message.metadata.dst_node_id for message in sent] == [1, 2, 3]
    assert [message.metadata.message_type for message in sent] == ["train", "train", JOIN]
    assert [START in message.content for message in sent] == [False, True, False]
    assert sent[0].content["model"] is sent[1].content["model"] is model  # what is shared stays shared
    assert torch.equal(from_record(sent[1].content[START])["weight"], start["weight"])
    for trained in (set(), {"street/0001"}):
        strategy.newcomers.trained = trained
        evaluated = strategy.configure_evaluate(3, model, config, cohort)
        assert [START in message.content for message in evaluated] == [False, not trained, False]


def test_a_client_that_joined_lately_counts_for_less_in_eq_6(settings_of, network, source, uploads):
    settings = settings_of(
        {
            "dualadapt.guard": False,
            "dualadapt.server-steps": 1,
            "dualadapt.server-batch": 16,
            "dualadapt.finetune-learning-rate": 1e-30,
            "dualadapt.weight-decay": 0,
        }
    )

    def loss(contents, late):
        strategy = joined(DualAdaptServer(settings, copy.deepcopy(network), source), late)
        return strategy.aggregate_train(ROUND, messages(contents))[1]["alignment-loss"]

    alone = [loss([content], {}) for content in uploads]
    assert loss(uploads, {"pen/0002": ROUND - 1}) == pytest.approx(
        (alone[0] + alone[1] + 0.25 * alone[2]) / 2.25, rel=1e-5
    )


def test_weights_of_one_and_of_others_than_these_change_no_bit(settings_of, network, source, uploads):
    settings = settings_of({"dualadapt.server-steps": 3, "dualadapt.server-batch": 16})
    results = []
    for late in ({}, {"pen/0001": ROUND - 5, "street/0000": ROUND - 1}):
        strategy = joined(DualAdaptServer(settings, copy.deepcopy(network), source), late)
        results.append(from_record(strategy.aggregate_train(ROUND, messages(uploads))[0]))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def hold_out_accuracy(network, source):
    with torch.no_grad():
        predicted = network.eval()(prepare(source.watched.inputs, True)).argmax(dim=1)
    return (predicted == source.watched.labels).float().mean().item()


@pytest.mark.parametrize("rates", [(0.3, 1e-30), (1e-30, 0.3)], ids=["alignment", "fine-tuning"])
def test_the_guard_undoes_steps_that_ruin_the_hold_out_and_says_so(rates, settings_of, network, source, uploads):
    settings = settings_of(
        {
            "dualadapt.server-steps": 10,
            "dualadapt.server-batch": 16,
            "dualadapt.align-learning-rate": rates[0],
            "dualadapt.finetune-learning-rate": rates[1],
        }
    )
    before = hold_out_accuracy(network, source)
    assert before > 0.9

    unguarded = copy.deepcopy(network)
    DualAdaptServer(settings.changed({"dualadapt.guard": False}), unguarded, source).aggregate_train(
        ROUND, messages(uploads)
    )
    assert hold_out_accuracy(unguarded, source) < before - 0.2

    arrays, metrics = DualAdaptServer(settings, network, source).aggregate_train(ROUND, messages(uploads))
    network.load_state_dict(from_record(arrays))
    after = hold_out_accuracy(network, source)
    assert after >= before - GUARD_TOLERANCE
    assert metrics["guard-undone"] >= 1
    assert metrics["guard-looks"] == 2
    assert metrics["hold-out-accuracy-before"] == pytest.approx(100 * before, abs=1e-3)
    assert metrics["hold-out-accuracy"] == pytest.approx(100 * after, abs=1e-3)
    assert metrics["discrepancy"] <= metrics["discrepancy-before"] + GUARD_TOLERANCE * 2 / 10


def test_undoing_everything_gives_back_every_bit(settings_of, network, source, uploads):
    settings = settings_of(
        {"dualadapt.server-steps": 5, "dualadapt.server-batch": 16, "dualadapt.align-learning-rate": 10.0}
    )
    before = copy.deepcopy(network.state_dict())
    arrays, metrics = DualAdaptServer(settings, network, source).aggregate_train(ROUND, messages(uploads))
    assert metrics["guard-undone"] == metrics["guard-looks"] == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in from_record(arrays).items())


def test_the_guard_changes_nothing_where_it_undoes_nothing(settings_of, network, source, uploads):
    settings = settings_of(
        {
            "dualadapt.server-steps": 5,
            "dualadapt.server-batch": 16,
            "dualadapt.align-learning-rate": 1e-5,
            "dualadapt.finetune-learning-rate": 1e-5,
        }
    )
    other = copy.deepcopy(network)
    arrays, metrics = DualAdaptServer(settings, network, source).aggregate_train(ROUND, messages(uploads))
    assert metrics["guard-undone"] == 0
    plain = DualAdaptServer(settings.changed({"dualadapt.guard": False}), other, source).aggregate_train(
        ROUND, messages(uploads)
    )
    first, second = from_record(arrays), from_record(plain[0])
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert not [key for key in plain[1] if "guard" in key]


def test_without_replies_nothing_changes(settings_of, network, source):
    before = copy.deepcopy(network.state_dict())
    assert DualAdaptServer(settings_of(), network, source).aggregate_train(ROUND, []) == (None, None)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_equal_rounds_give_equal_bits_and_another_round_does_not(settings_of, trained, source, uploads):
    results = []
    for server_round in (ROUND, ROUND, ROUND + 1):
        strategy = DualAdaptServer(settings_of({"dualadapt.server-batch": 16}), copy.deepcopy(trained), source)
        results.append(from_record(strategy.aggregate_train(server_round, messages(uploads))[0]))
    first, again, other = results
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 2, 0)])
def test_the_order_in_which_clients_finish_does_not_matter(order, settings_of, trained, source, uploads):
    settings = settings_of({"dualadapt.server-batch": 16, "dualadapt.components": 3})
    names = {10 + number: f"pen/{number:04d}" for number in range(3)}

    def aggregated(order):
        strategy = DualAdaptServer(settings, copy.deepcopy(trained), source)
        asked = [Message(RecordDict(), dst_node_id=10 + number, message_type="train") for number in order]
        replies = [Message(uploads[n], reply_to=each) for n, each in zip(order, asked, strict=True)]
        phase = admit(Answers(replies, dict.fromkeys(names, 0)), names, strategy.check_upload, timeout=1.0)
        assert phase.failures == []
        return from_record(strategy.aggregate_train(ROUND, list(phase.replies.values()))[0])

    first, other = aggregated((0, 1, 2)), aggregated(order)
    assert all(torch.equal(first[name], other[name]) for name in first)


def test_a_classifier_of_several_layers_with_batch_norm_is_aligned_too(settings_of, source):
    def wide():
        torch.manual_seed(0)
        head = nn.Sequential(nn.Linear(128, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
        for layer in head:
            if isinstance(layer, nn.BatchNorm1d):
                layer.num_batches_tracked = None
        return Network(build("small-cnn", 10, SHAPE, 0).feature_extractor, head, 128)

    network = wide()
    strategy = DualAdaptServer(settings_of({"dualadapt.guard": True, "dualadapt.server-batch": 16}), network, source)
    generator = torch.Generator().manual_seed(1)
    local = {n: t + 0.1 * torch.rand(t.shape, generator=generator) for n, t in network.classifier.state_dict().items()}
    mixture = fit(torch.rand(80, 128, generator=generator), 2, 0)
    content = RecordDict(
        {
            "client": ConfigRecord({"name": "pen/0000"}),
            "metrics": MetricRecord({"num-examples": 1}),
            "classifier": to_record(local),
            "mixture": to_record(mixture.arrays()),
        }
    )
    strategy.check_upload(content)
    _, metrics = strategy.aggregate_train(ROUND, messages([content]))
    assert metrics["fine-tuning-loss"] > 0


def test_every_client_of_the_cohort_gets_model_and_source_mixture(settings_of, network, source):
    settings = settings_of({"dualadapt.components": 3})
    strategy = DualAdaptServer(settings, network, source)
    arrays = to_record(network.state_dict())
    sent = list(strategy.configure_train(ROUND, arrays, config_record(settings, ROUND), COHORT))
    assert [message.metadata.dst_node_id for message in sent] == [30, 10, 20]
    for message in sent:
        assert message.metadata.message_type == "train"
        assert set(message.content) == {"model", "source_mixture", "config"}
        mixture = Mixture.from_arrays({n: a.numpy() for n, a in message.content["source_mixture"].items()})
        assert len(mixture.weights) == 3
    # the source is typical of its own mixture
    with torch.no_grad():
        z = network.feature_extractor(prepare(source.trained.inputs, True))
    assert 0.35 < mixture.typicality(z).mean() < 0.65


def test_configuring_takes_the_weights_of_the_round(settings_of, trained, source):
    network = build("small-cnn", 10, SHAPE, 5)
    settings = settings_of()
    strategy = DualAdaptServer(settings, network, source)
    list(
        strategy.configure_train(
            1, to_record(trained.state_dict()), config_record(settings, 1), Cohort({1: "pen/0000"})
        )
    )
    assert all(torch.equal(t, trained.state_dict()[n]) for n, t in network.state_dict().items())


@pytest.fixture
def real_reply(settings_of, client_of, message_to, source):
    """What a real client sends, and the strategy that asked for it."""
    settings = settings_of()
    client = client_of(settings)
    strategy = DualAdaptServer(settings, build("small-cnn", 10, (3, 32, 32), 0), source)
    return strategy, DualAdapt().train(message_to(client), client).content


def test_what_a_client_really_sends_is_accepted(real_reply):
    strategy, content = real_reply
    strategy.check_upload(content)


def test_the_upload_of_another_network_is_refused(real_reply):
    strategy, content = real_reply
    content["classifier"] = to_record({"0.weight": torch.zeros(10, 128), "0.bias": torch.zeros(10)})
    with pytest.raises(BadReply, match=r"unexpected arrays \['0.bias', '0.weight'\]"):
        strategy.check_upload(content)


def test_the_upload_of_a_network_with_other_features_is_refused(real_reply):
    strategy, content = real_reply
    content["classifier"] = to_record({"weight": torch.zeros(10, 64), "bias": torch.zeros(10)})
    with pytest.raises(BadReply, match=r"weight is float32\[10, 64\], expected float32\[10, 128\]"):
        strategy.check_upload(content)


def test_a_whole_model_is_refused_as_an_upload(real_reply):
    strategy, content = real_reply
    content["model"] = to_record({"weight": torch.zeros(1)})
    with pytest.raises(BadReply, match="'model'"):
        strategy.check_upload(content)


def test_a_mixture_of_too_many_components_is_refused(real_reply, source):
    strategy, content = real_reply
    content["mixture"] = to_record(fit(torch.rand(200, 128), 3, 0).arrays())
    with pytest.raises(BadReply, match="mixture of 3 components, allowed are 1 to 2"):
        strategy.check_upload(content)


@pytest.fixture
def guarded(network, source, uploads):
    """A guard that has just begun to watch a trained network, and the optimisers that it looks after."""
    records = [upload.array_records for upload in uploads]
    mixtures = [Mixture.from_arrays({name: a.numpy() for name, a in each["mixture"].items()}) for each in records]
    clients = _Clients.stack(
        network, [(from_record(r["classifier"]), m) for r, m in zip(records, mixtures, strict=True)]
    )
    align, finetune = (torch.optim.Adam(network.parameters(), lr=0.4) for _ in range(2))
    return _Guard(network, clients, align, finetune, source, torch.Generator().manual_seed(0)), align, finetune


def ruin(network):
    with torch.no_grad():
        network.feature_extractor[1].weight.neg_()


def test_after_every_undone_step_alignment_goes_on_with_half_its_step_size(guarded, network):
    guard, align, finetune = guarded
    good = copy.deepcopy(network.state_dict())
    rates = []
    for _ in range(3):
        ruin(network)
        guard.look()
        rates.append(align.param_groups[0]["lr"])
        assert all(torch.equal(tensor, good[name]) for name, tensor in network.state_dict().items())
    assert rates == pytest.approx([0.2, 0.1, 0.05])
    assert finetune.param_groups[0]["lr"] == 0.4


def test_the_guard_goes_back_to_the_last_good_state_and_not_to_the_first(guarded, network):
    guard, _, _ = guarded
    with torch.no_grad():
        network.feature_extractor[1].weight.mul_(1.0001)
    guard.look()
    good = copy.deepcopy(network.state_dict())
    ruin(network)
    guard.look()
    assert (guard.looks, guard.undone) == (2, 1)
    assert all(torch.equal(tensor, good[name]) for name, tensor in network.state_dict().items())


def test_small_losses_do_not_add_up_over_the_looks(guarded, monkeypatch):
    guard, _, _ = guarded
    lost = iter([0.6, 1.2, 1.8])
    monkeypatch.setattr(
        guard, "_measure", lambda: (guard.first_accuracy - GUARD_TOLERANCE * next(lost), guard.first_discrepancy)
    )
    undone = []
    for _ in range(3):
        guard.look()
        undone.append(guard.undone)
    assert undone == [0, 1, 2]
