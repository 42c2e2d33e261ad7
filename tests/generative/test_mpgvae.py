"""MPGVAE: the evidence bound and its parts, what depends on the order of nodes and what does not, sampling."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence

from fmtda.domains.fragments import enumerated
from fmtda.generative.molecules import QM9, read
from fmtda.generative.mpgvae import (
    BOND_KINDS,
    MPGVAE,
    MessageRound,
    MPGVAESettings,
    build,
    divergence_from_prior,
    order_dependence,
    permuted,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def autoencoder(**changes):
    """A small model of QM9's format."""
    torch.manual_seed(1)
    return MPGVAE(**{"nodes": 9, "atom_kinds": 5, "node_width": 16, "message_width": 8, "latent": 6, **changes})


def graphs_of(smiles):
    return torch.from_numpy(np.stack([read(text, QM9).graph for text in smiles]))


@pytest.fixture(scope="module")
def molecules():
    return graphs_of(enumerated(9)[::40])


# --- evidence ---


def test_the_reconstruction_is_the_log_probability_of_independent_categories(molecules):
    model = autoencoder()
    z = torch.randn(len(molecules), 6, generator=generator())
    atoms, bonds = model.log_likelihood(molecules, z)
    atom_logits, bond_logits = model.decoder(z)
    kinds = molecules.long()
    expected = Categorical(logits=atom_logits).log_prob(kinds.diagonal(dim1=1, dim2=2)).sum(1)
    torch.testing.assert_close(atoms, expected)
    expected = sum(
        Categorical(logits=bond_logits[:, u, v]).log_prob(kinds[:, u, v]) for v in range(9) for u in range(v)
    )
    torch.testing.assert_close(bonds, expected)


def test_an_undecided_decoder_costs_the_logarithm_of_the_number_of_graphs(molecules):
    model = autoencoder(divergence_weight=0.5)
    for parameter in (*model.decoder.atoms.parameters(), *model.decoder.bonds.parameters()):
        torch.nn.init.zeros_(parameter)
    bound = model.bound(molecules, generator())
    torch.testing.assert_close(bound.atoms, torch.full((len(molecules),), -9 * np.log(5)).float())
    torch.testing.assert_close(bound.bonds, torch.full((len(molecules),), -36 * np.log(4)).float())
    torch.testing.assert_close(bound.total, bound.atoms + bound.bonds - bound.divergence)
    expected = 9 * np.log(5) + 36 * np.log(4) + 0.5 * bound.divergence.mean()
    torch.testing.assert_close(model.loss(molecules, generator()), expected.float())


def test_the_divergence_is_that_of_torch_distributions():
    mean, log_variance = torch.randn(2, 10, 6, generator=generator())
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(divergence_from_prior(mean, log_variance), expected)
    assert not divergence_from_prior(torch.zeros(2, 3), torch.zeros(2, 3)).any()


@torch.no_grad()
def test_the_bound_is_below_the_log_likelihood_and_importance_sampling_closes_in():
    model, graph = autoencoder(), graphs_of(["CC(=O)N"])
    draws = 4000
    mean, log_variance = model.encode(graph)
    graph = model.ordered(graph)
    posterior, prior = Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)
    z = mean + (log_variance / 2).exp() * torch.randn(draws, 6, generator=generator())
    joint = sum(model.log_likelihood(graph.expand(draws, -1, -1), z))
    weights = joint + prior.log_prob(z).sum(1) - posterior.log_prob(z).sum(1)
    evidence = weights.logsumexp(0) - np.log(draws)
    bound = model.bound(graph.expand(draws, -1, -1), generator(1)).total.mean()
    error = float(weights.std()) * (2 / draws) ** 0.5
    assert float(bound) == pytest.approx(float(weights.mean()), abs=4 * error)
    assert bound < evidence


# --- order of nodes ---


NUMBERINGS = ("canonical", "given")


@torch.no_grad()
@pytest.mark.parametrize("numbering", NUMBERINGS)
def test_the_encoder_is_invariant_to_the_order_of_nodes(molecules, numbering):
    model = autoencoder(numbering=numbering).double()
    renumbered = permuted(molecules, generator())
    assert not torch.equal(renumbered, molecules)
    torch.testing.assert_close(model.encode(renumbered), model.encode(molecules), rtol=0, atol=1e-12)
    empties_first = molecules.flip(1, 2)
    torch.testing.assert_close(model.encode(empties_first), model.encode(molecules), rtol=0, atol=1e-12)


def test_permuted_graphs_are_the_same_molecules(molecules):
    renumbered = permuted(molecules, generator())
    one, other = (graphs.diagonal(dim1=1, dim2=2) for graphs in (molecules, renumbered))
    assert torch.equal(one > 0, other > 0), "empty places stay behind the atoms"
    eigenvalues = [torch.linalg.eigvalsh(graphs.double()) for graphs in (molecules, renumbered)]
    torch.testing.assert_close(*eigenvalues)


@pytest.mark.parametrize("numbering", NUMBERINGS)
def test_the_loss_depends_on_the_order_of_the_target_alone(molecules, numbering):
    torch.manual_seed(0)
    sizes = {"node_width": 32, "message_width": 16, "latent": 16, "message_rounds": 2}
    model = MPGVAE(9, 5, numbering=numbering, **sizes)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        model.loss(molecules, generator()).backward()
        optimiser.step()
    measured = order_dependence(model, molecules, generator())
    assert measured.input_permuted == pytest.approx(measured.as_trained, abs=1e-3)
    assert measured.both_permuted > measured.as_trained + 3


def test_with_canonical_numbers_the_data_may_come_in_any_order(molecules):
    renumbered = permuted(molecules, generator())
    for numbering, equal in (("canonical", True), ("given", False)):
        model = autoencoder(numbering=numbering).double()
        losses = [model.loss(graphs, generator(1)).item() for graphs in (molecules, renumbered)]
        assert (losses[0] == pytest.approx(losses[1], abs=1e-9)) == equal


@torch.no_grad()
def test_the_decoder_makes_nodes_one_after_the_other():
    decoder, z = autoencoder().decoder, torch.randn(4, 6, generator=generator())
    inputs = decoder.expand(z).unflatten(1, (9, -1))
    other = inputs.clone()
    other[:, 3] += 1
    moved = (decoder.sequence(other)[0] - decoder.sequence(inputs)[0]).abs().amax((0, 2)) > 0
    assert moved.tolist() == [False] * 3 + [True] * 6
    atoms, _ = decoder(z)
    assert atoms.std(dim=1).min() > 1e-3, "all nodes are alike"


# --- message passing ---


@pytest.fixture
def passing():
    torch.manual_seed(2)
    return MessageRound(6, 4).double()


def test_attention_sums_to_one_over_incoming_messages(passing):
    messages = torch.randn(3, 5, 5, 4, generator=generator(), dtype=torch.float64)
    incoming = torch.rand(3, 5, 5, generator=generator()) < 0.5
    incoming[0, 2] = False
    weights = passing.attention(messages, incoming)[..., 0]
    torch.testing.assert_close(weights.sum(2), incoming.any(2).double())
    assert not weights[~incoming].any() and (weights[incoming] > 0).all()


def test_a_round_is_the_papers_equations_node_by_node(passing):
    nodes = torch.randn(2, 5, 6, generator=generator(), dtype=torch.float64)
    edges = torch.randn(2, 5, 5, 4, generator=generator(), dtype=torch.float64)
    states, messages = passing(nodes, edges, ~torch.eye(5, dtype=torch.bool))
    normed = passing.norm(nodes)
    weight = torch.cat([passing.receiver.weight, passing.sender.weight, passing.edge.weight], 1)
    for graph in range(2):
        for v in range(5):
            others = [u for u in range(5) if u != v]
            sent = torch.stack(
                [
                    torch.tanh(
                        weight @ torch.cat([normed[graph, v], normed[graph, u], edges[graph, v, u]])
                        + passing.receiver.bias
                    )
                    for u in others
                ]
            )
            attention = passing.score(sent).softmax(0)
            expected = passing.update(len(others) * (attention * sent).sum(0), nodes[graph, v])
            torch.testing.assert_close(messages[graph, v, others], sent)
            torch.testing.assert_close(states[graph, v], expected)


def test_a_round_on_zero_edges_needs_no_weights_for_them(passing):
    nodes = torch.randn(2, 5, 6, generator=generator(), dtype=torch.float64)
    incoming = ~torch.eye(5, dtype=torch.bool)
    first = MessageRound(6, 4, zero_edges=True).double()
    weights = passing.state_dict()
    del weights["edge.weight"]
    first.load_state_dict(weights)
    torch.testing.assert_close(
        first(nodes, None, incoming), passing(nodes, nodes.new_zeros(2, 5, 5, 4), incoming), rtol=0, atol=0
    )


def test_a_single_atom_is_encoded_without_messages():
    mean, log_variance = autoencoder().encode(graphs_of(["C", "CC"]))
    assert mean.isfinite().all() and log_variance.isfinite().all()
    assert not torch.equal(mean[0], mean[1])


# --- sampling ---


@pytest.mark.parametrize("categories", ["likeliest", "drawn"])
def test_samples_are_graphs_and_equal_generators_give_equal_ones(categories):
    model = autoencoder(categories=categories)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    steps = []
    graphs = model.sample(200, generator(3), steps.append)
    atoms = graphs.diagonal(dim1=1, dim2=2)
    assert graphs.dtype == torch.int8 and graphs.shape == (200, 9, 9)
    assert torch.equal(graphs, graphs.transpose(1, 2))
    assert graphs.min() >= 0 and (graphs - torch.diag_embed(atoms)).max() < BOND_KINDS and atoms.max() < 5
    assert (atoms == 0).any() and not graphs[atoms == 0].any(), "bonds at a place without an atom"
    assert len(torch.unique(graphs, dim=0)) > 20
    assert sum(steps) == model.sampling_steps
    assert torch.equal(graphs, model.sample(200, generator(3)))
    assert not torch.equal(graphs, model.sample(200, generator(4)))


def test_drawn_categories_have_the_decoders_probabilities():
    model = autoencoder(categories="drawn")
    z = torch.randn(1, 6, generator=generator())
    graphs = model.decode(z.expand(4000, -1), generator())
    atom_logits, _ = model.decoder(z)
    counts = torch.nn.functional.one_hot(graphs.diagonal(dim1=1, dim2=2).long(), 5).float().mean(0)
    torch.testing.assert_close(counts, atom_logits[0].softmax(-1), rtol=0, atol=0.03)


def test_temperature_is_the_spread_of_the_draw():
    model = autoencoder(temperature=0.0)
    assert len(torch.unique(model.sample(20, generator()), dim=0)) == 1


def test_a_handful_of_molecules_is_learned_by_heart():
    graphs = graphs_of(["CCO", "CC(=O)N", "c1ccoc1", "C#N", "CC(C)(C)O", "FC(F)F", "C1CC1N", "O=CC=O"])
    torch.manual_seed(0)
    model = MPGVAE(9, 5, node_width=48, message_width=24, latent=16, message_rounds=2, divergence_weight=0.01)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    draws = generator()
    for _ in range(200):
        loss = model.loss(graphs, draws)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    mean, _ = model.encode(graphs)
    assert torch.equal(model.decode(mean, draws), model.ordered(graphs))


def test_equal_seeds_give_equal_losses_and_gradients(molecules):
    results = []
    for _ in range(2):
        model = autoencoder()
        loss = model.loss(molecules, generator(5))
        loss.backward()
        results.append((loss, [parameter.grad for parameter in model.parameters()]))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(one, other) for one, other in zip(results[0][1], results[1][1], strict=True))
    assert autoencoder().loss(molecules, generator(6)) != results[0][0]


# --- a model of the platform ---


def test_every_parameter_is_trained_and_the_state_holds_nothing_else(molecules):
    model = autoencoder()
    model.loss(molecules, generator()).backward()
    assert all(parameter.grad.any() for parameter in model.parameters())
    assert model.state_dict().keys() == dict(model.named_parameters()).keys()


def test_the_model_is_built_by_settings():
    sizes = {"node-width": 8, "message-width": 6, "latent": 5, "message-rounds": 2, "divergence-weight": 0.3}
    table = MPGVAESettings.validated({**sizes, "numbering": "given", "temperature": 0.9, "categories": "drawn"})
    model = build(SimpleNamespace(model=table, shape=(4, 4), class_names=("C", "N")))
    assert (len(model.encoder.rounds), len(model.decoder.rounds)) == (2, 2)
    assert (model.nodes, model.latent, model.divergence_weight) == (4, 5, 0.3)
    assert (model.numbering, model.temperature, model.categories) == ("given", 0.9, "drawn")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nodes": 1}, "nodes=1 must be at least 2"),
        ({"message_rounds": 0}, "message_rounds=0 must be at least 1"),
        ({"divergence_weight": -0.1}, "divergence_weight=-0.1 must be at least 0"),
        ({"numbering": "random"}, "'random' is unknown; allowed are canonical, given"),
        ({"categories": "best"}, "'best' is unknown; allowed are likeliest, drawn"),
    ],
)
def test_wrong_parameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        autoencoder(**wrong)


def test_graphs_of_another_size_are_refused(molecules):
    with pytest.raises(ValueError, match=r"graphs \(\d+, 9, 9\) must be \(B, 4, 4\); build the model for that size"):
        autoencoder(nodes=4).loss(molecules, generator())
