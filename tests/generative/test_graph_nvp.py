"""GraphNVP: the inverse, the Jacobian by autograd, densities that integrate to one, reconstruction, sampling."""

import math
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fmtda.domains.fragments import enumerated
from fmtda.generative.graph_nvp import BOND_KINDS, GraphNVP, GraphNVPSettings, build, gaussian_log_density
from fmtda.generative.molecules import QM9, all_smiles, read, read_many

ROOT = Path(__file__).parents[2]
COUPLINGS = ("affine", "additive")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def flow(nodes=4, atom_kinds=3, **changes):
    """A small flow that is not the identity any more, in float64."""
    torch.manual_seed(1)
    sizes = {"adjacency_turns": 2, "node_turns": 1, "adjacency_width": 16, "node_width": 8}
    model = GraphNVP(nodes, atom_kinds, **{**sizes, **changes}).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def untrained_on_qm9():
    """A float32 flow of QM9's format, not the identity."""
    torch.manual_seed(0)
    model = GraphNVP(9, 5, adjacency_turns=1, node_turns=1, adjacency_width=16, node_width=8)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def graphs_of(smiles):
    return torch.from_numpy(np.stack([read(text, QM9).graph for text in smiles]))


def random_graphs(count, nodes=4, atom_kinds=3):
    kinds = torch.randint(0, BOND_KINDS, (count, nodes, nodes), generator=generator(), dtype=torch.int8).triu(1)
    atoms = torch.randint(0, atom_kinds, (count, nodes), generator=generator(1), dtype=torch.int8)
    return kinds + kinds.transpose(1, 2) + torch.diag_embed(atoms)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_inverse_undoes_forward_to_the_precision_of_float64(coupling):
    model = flow(coupling=coupling)
    bonds, atoms = model.one_hot(random_graphs(20))
    noisy_bonds, noisy_atoms = model.noisy(bonds, generator()), model.noisy(atoms, generator())
    bonds_latent, _ = model.forward_bonds(noisy_bonds)
    atoms_latent, _ = model.forward_atoms(noisy_atoms, bonds)
    assert (bonds_latent - noisy_bonds).abs().max() > 0.1, "the flow is the identity"
    torch.testing.assert_close(model.inverse_bonds(bonds_latent), noisy_bonds, rtol=0, atol=1e-10)
    torch.testing.assert_close(model.inverse_atoms(atoms_latent, bonds), noisy_atoms, rtol=0, atol=1e-10)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_log_determinants_are_those_of_autograds_jacobian(coupling):
    model = flow(coupling=coupling)
    bonds, atoms = model.one_hot(random_graphs(1))
    noisy_bonds, noisy_atoms = model.noisy(bonds, generator()), model.noisy(atoms, generator())

    def determinant(function, values):
        jacobian = torch.autograd.functional.jacobian(function, values)
        return torch.linalg.slogdet(jacobian.reshape(values.numel(), values.numel())).logabsdet

    expected = determinant(lambda values: model.forward_bonds(values)[0], noisy_bonds)
    torch.testing.assert_close(model.forward_bonds(noisy_bonds)[1][0], expected)
    expected = determinant(lambda values: model.forward_atoms(values, bonds)[0], noisy_atoms)
    torch.testing.assert_close(model.forward_atoms(noisy_atoms, bonds)[1][0], expected)
    if coupling == "affine":
        assert expected.abs() > 1e-3
    else:
        assert expected.abs() < 1e-12


@torch.no_grad()
def test_the_density_of_two_atoms_given_their_bond_integrates_to_one():
    model = flow(nodes=2, atom_kinds=1, node_turns=3)
    axis = torch.linspace(-9, 9, 181, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)[:, :, None]
    for bond in torch.eye(BOND_KINDS, dtype=torch.float64):
        bonds = bond.expand(len(grid), -1)
        density = model.log_density_of(bonds, grid, bonds).atoms.exp()
        assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=1e-6)


@torch.no_grad()
def test_the_density_of_the_bonds_of_three_nodes_integrates_to_one():
    model = flow(nodes=3)
    for parameter in model.adjacency_couplings.parameters():
        parameter.mul_(0.5)  # so that a somewhat wider prior is a proposal of about the same shape
    count, spread = 40_000, model.bond_log_spread + math.log(1.25)
    points = torch.randn(count, 12, generator=generator(), dtype=torch.float64) * spread.exp()
    latent, volume = model.forward_bonds(points)
    log_density = gaussian_log_density(latent, model.bond_log_spread) + volume
    shares = (log_density - gaussian_log_density(points, spread)).exp()
    error = float(shares.std()) / math.sqrt(count)
    assert error < 0.02 and volume.mean() > 1, "the estimate says nothing"
    assert float(shares.mean()) == pytest.approx(1, abs=4 * error)


def test_an_untrained_flow_is_the_identity_and_its_density_that_of_the_prior():
    model = GraphNVP(4, 3, adjacency_turns=1, node_turns=1, adjacency_width=8, node_width=8)
    bonds, atoms = model.one_hot(random_graphs(5))
    log_density = model.log_density_of(bonds, atoms, bonds)
    prior = torch.distributions.Normal(0.0, math.exp(-0.7))
    torch.testing.assert_close(log_density.bonds, prior.log_prob(bonds).sum(1))
    torch.testing.assert_close(log_density.atoms, prior.log_prob(atoms).sum((1, 2)))


def test_bits_per_dimension_count_the_cube_that_a_graph_owns():
    model = GraphNVP(4, 3, adjacency_turns=1, node_turns=1, adjacency_width=8, node_width=8, noise=0.5)
    # Half of the density in the cube of one graph: it costs one bit, whatever the noise.
    uniform = math.log(0.5 / 0.5**model.dimensions)
    assert float(model.bits_per_dimension(torch.tensor(uniform))) == pytest.approx(1 / model.dimensions, abs=1e-5)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_every_node_is_changed_and_never_by_a_network_that_sees_it(coupling):
    model = flow(coupling=coupling)
    bonds, atoms = model.one_hot(random_graphs(3))
    around = model._around(bonds)
    kinds = ((model.adjacency_couplings, bonds, ()), (model.node_couplings, atoms, around))
    for couplings, values, given in kinds:
        changed = set()
        for one in couplings:
            other = values.clone()
            other[:, one.places] = torch.randn(other[:, one.places].shape, dtype=other.dtype)
            torch.testing.assert_close(one.parameters_of(values, *given), one.parameters_of(other, *given))
            difference = (one(values, *given)[0] - values).abs().flatten(2 if values.ndim > 2 else 1)
            moved = difference.sum((0, 2) if difference.ndim > 2 else 0) > 0
            assert moved.nonzero().flatten().tolist() == one.places.tolist()
            changed |= set(one.places.tolist())
        assert changed == set(range(values.shape[1]))


def test_an_adjacency_coupling_changes_the_bonds_of_its_node():
    model = flow()
    pairs = model.pairs.T.tolist()
    for i, coupling in enumerate(model.adjacency_couplings):
        touched = {tuple(pairs[place // BOND_KINDS]) for place in coupling.places.tolist()}
        assert touched == {tuple(pair) for pair in pairs if i % 4 in pair}


def test_every_molecule_is_reconstructed():
    graphs = graphs_of(enumerated(9)[::3])
    model = untrained_on_qm9()
    assert torch.equal(model.decode(model.encode(graphs, generator())), graphs)


def test_real_molecules_are_reconstructed():
    file = Path(os.environ.get("FMTDA_DATA_DIR") or ROOT.parent / "shared" / "data") / "molecules" / "qm9.csv"
    if not file.is_file():
        pytest.skip(f"no {file}; set FMTDA_DATA_DIR")
    readings, _ = read_many(enumerate(file.read_text().split()[1::100], 1), QM9)
    graphs = torch.from_numpy(np.stack([reading.graph for reading in readings]))
    model = untrained_on_qm9()
    assert len(graphs) > 1000 and torch.equal(model.decode(model.encode(graphs, generator())), graphs)


def test_samples_are_graphs_and_equal_generators_give_equal_ones():
    model = flow().float()
    steps = []
    graphs = model.sample(50, generator(3), steps.append)
    assert graphs.dtype == torch.int8 and graphs.shape == (50, 4, 4)
    assert torch.equal(graphs, graphs.transpose(1, 2))
    assert graphs.min() >= 0 and graphs.max() < BOND_KINDS and graphs.diagonal(dim1=1, dim2=2).max() < 3
    assert sum(steps) == model.sampling_steps == 12
    assert torch.equal(graphs, model.sample(50, generator(3)))
    assert not torch.equal(graphs, model.sample(50, generator(4)))


def test_atoms_are_drawn_given_the_bonds_and_bonds_without_atoms():
    model = flow()
    latent = torch.randn(30, model.dimensions, generator=generator(), dtype=torch.float64)
    split = model.bond_log_spread.numel()
    graphs = model.decode(latent)
    other_atoms = model.decode(torch.cat([latent[:, :split], latent[:, split:].flip(0)], 1))
    other_bonds = model.decode(torch.cat([latent[:, :split].flip(0), latent[:, split:]], 1))
    off_diagonal = ~torch.eye(4, dtype=torch.bool)
    assert torch.equal(graphs[:, off_diagonal], other_atoms[:, off_diagonal])
    assert not torch.equal(graphs.diagonal(dim1=1, dim2=2), other_bonds.diagonal(dim1=1, dim2=2))


def test_temperature_is_the_spread_of_the_draw():
    model = flow().float()
    model.temperature = 0.0
    assert len(torch.unique(model.sample(20, generator()), dim=0)) == 1
    model.temperature = 1.0
    assert len(torch.unique(model.sample(20, generator()), dim=0)) > 10


def test_interpolation_runs_from_one_molecule_to_the_other():
    ends = graphs_of(["CCO", "c1ccoc1"])
    model = untrained_on_qm9()
    path = model.interpolate(ends, 7, generator())
    assert path.shape == (7, 9, 9) and torch.equal(path[[0, -1]], ends)
    assert list(all_smiles(path[[0, -1]].numpy(), QM9)) == ["CCO", "c1ccoc1"]


def test_training_in_bfloat16_follows_the_same_loss():
    sizes = {"adjacency_turns": 1, "node_turns": 1, "adjacency_width": 32, "node_width": 16}
    graphs = graphs_of(enumerated(9)[::30])
    losses = {}
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        model = GraphNVP(9, 5, precision=precision, **sizes)
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        draws, losses[precision] = generator(), []
        for _ in range(20):
            loss = model.loss(graphs, draws)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses[precision].append(loss.item())
    assert losses["float32"][-1] < 0.75 * losses["float32"][0]
    assert losses["bfloat16"][-1] == pytest.approx(losses["float32"][-1], abs=0.02)


def test_the_state_holds_learned_floats_alone():
    model = flow()
    assert model.state_dict().keys() == dict(model.named_parameters()).keys()
    assert all(value.is_floating_point() for value in model.state_dict().values())


def test_the_model_is_built_by_settings():
    sizes = {"adjacency-turns": 1, "node-turns": 2, "adjacency-width": 8, "node-width": 4}
    table = GraphNVPSettings.validated({**sizes, "coupling": "additive", "noise": 0.5, "temperature": 0.6})
    model = build(SimpleNamespace(model=table, shape=(3, 3), class_names=("C", "N", "O")))
    assert (len(model.adjacency_couplings), len(model.node_couplings)) == (3, 6)
    assert (model.noise, model.temperature, model.dimensions) == (0.5, 0.6, 3 * 4 + 3 * 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nodes": 1}, "nodes=1 must be at least 2"),
        ({"coupling": "linear"}, "'linear' is unknown; allowed are affine, additive"),
        ({"adjacency_turns": 0}, "adjacency_turns=0 must be at least 1"),
        ({"node_turns": 0}, "node_turns=0 must be at least 1"),
        ({"noise": 1.0}, "noise=1.0 must be above 0 and below 1"),
        ({"precision": "float16"}, "allowed are float32, bfloat16"),
    ],
)
def test_wrong_parameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        GraphNVP(**{"nodes": 4, "atom_kinds": 3, **wrong})
