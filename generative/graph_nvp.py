"""Holds GraphNVP, an invertible flow between molecular graphs and noise; bonds are drawn first, then the atoms.

Madhawa, Ishiguro, Nakago and Abe, "GraphNVP: an invertible flow model for generating molecular graphs", 2019; chapter
1 of the notes. A graph is its bonds A and its atoms X, both one-hot, made continuous by uniform noise. Couplings change
what belongs to one node by a scale and a shift that depend on everything else (Figure 2), so that the inverse and the
determinant of the Jacobian are known:

- an adjacency coupling changes the bonds of one node, given the bonds between all others, by a fully connected network;
- a node coupling changes the atom of one node, given all other atoms and all bonds, by a relational graph network.

log p(A, X) = log p(A) + log p(X | A) is exact for the noisy values, and bounds the likelihood of the graphs.

The official code models both halves of the symmetric matrix, each with noise of its own, and averages them when it
samples: what it draws does not have the density that it trains. Here each pair of nodes is modelled once, which makes
this a density over symmetric graphs, and takes half the dimensions.

Our choice: noise and temperature; affine couplings; layer normalisation; a learned spread for each dimension of the
prior; graph networks that share their reading of the bonds; and all sizes. `GraphNVP` says what trials made of them.

Shapes: B graphs of V nodes; P = V (V - 1) / 2 pairs; K = 4 kinds of bonds and T kinds of atoms, none being one of each;
H hidden units. Bonds are flat, (B, P K); atoms are (B, V, T); graphs are int8 (B, V, V), as in `generative.molecules`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fmtda.generative.model import GenerativeModel, RegisteredModel, unreported
from fmtda.generative.molecule_graphs import MoleculeGraphs, MoleculeModelSettings
from fmtda.generative.noise import normal
from fmtda.protocol.tables import setting

BOND_KINDS = 4
"""K: none, single, double, triple."""

FIRST_LOG_SPREAD = -0.7
"""Logarithm of the prior's spread before training: about that of one-hot values with noise."""


class LogDensity(NamedTuple):
    """Holds log p in nats, each (B,): of noisy bonds, and of noisy atoms given the bonds."""

    bonds: Tensor
    atoms: Tensor

    @property
    def total(self) -> Tensor:
        """Add up log p(A, X), (B,)."""
        return self.bonds + self.atoms


class GraphNVP(GenerativeModel):
    """This is the flow between graphs and Gaussian noise.

    Parameters
    ----------
    nodes : int
        V, at least 2.
    atom_kinds : int
        T, one more than the atom table is long.
    coupling : {"affine", "additive"}
        Whether couplings scale and shift, or only shift, as the paper's do on QM9.
    adjacency_turns, node_turns : int
        How often each node has its turn; V times as many couplings of the kind. At least 1.
    adjacency_width, node_width : int
        H of the fully connected networks, and of the graph networks.
    noise : float
        Upper end of the uniform noise, above 0 and below 1.
    temperature : float
        What `sample` multiplies the prior's spread by.
    precision : {"float32", "bfloat16"}
        What `loss` multiplies matrices in. bfloat16 is faster on processors that have it; sampling and densities
        are in the weights' type all the same.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    What trials on QM9 said of the module's choices (benchmarks/results/molecules/trials):

    - noise 0.4 and temperature 1: after 500 steps of 512 molecules, a minute of one core, 84 % of the samples are
      valid and 95 % of these unique. With the paper's 0.9 it is 37 % and 99 %; at temperature 0.7, 74 % and 93 %;
    - affine couplings: after 2,400 steps 0.43 bits a dimension, 87 % valid, 98 % unique; additive ones 0.46, 86 %,
      97 %. The official code calls affine node couplings unstable; a bounded scale keeps them stable;
    - layer normalisation for batch normalisation, whose running statistics a federation averages badly;
    - a learned spread for each dimension of the prior, where the paper has one for all;
    - graph networks that share their reading of the bonds, `Surroundings`. All in all 3.8 million parameters on QM9,
      the published network has 24.
    """

    pairs: Tensor

    def __init__(
        self,
        nodes: int,
        atom_kinds: int,
        coupling: Literal["affine", "additive"] = "affine",
        adjacency_turns: int = 3,
        node_turns: int = 2,
        adjacency_width: int = 256,
        node_width: int = 64,
        noise: float = 0.4,
        temperature: float = 1.0,
        precision: Literal["float32", "bfloat16"] = "float32",
    ):
        super().__init__()
        if nodes < 2:
            raise ValueError(f"nodes={nodes} must be at least 2")
        if coupling not in ("affine", "additive"):
            raise ValueError(f"coupling={coupling!r} is unknown; allowed are affine, additive")
        for name, turns in (("adjacency_turns", adjacency_turns), ("node_turns", node_turns)):
            if turns < 1:
                raise ValueError(f"{name}={turns} must be at least 1")
        if not 0 < noise < 1:
            raise ValueError(f"noise={noise} must be above 0 and below 1")
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision={precision!r} is unknown; allowed are float32, bfloat16")
        self.nodes = nodes
        self.atom_kinds = atom_kinds
        self.noise = noise
        self.temperature = temperature
        self.precision = precision
        self.register_buffer("pairs", torch.triu_indices(nodes, nodes, 1), persistent=False)
        affine = coupling == "affine"
        self.adjacency_couplings = nn.ModuleList(
            AdjacencyCoupling(node, self.pairs, adjacency_width, affine)
            for _ in range(adjacency_turns)
            for node in range(nodes)
        )
        self.surroundings = Surroundings(nodes, node_width)
        self.node_couplings = nn.ModuleList(
            NodeCoupling(node, atom_kinds, node_width, affine) for _ in range(node_turns) for node in range(nodes)
        )
        self.bond_log_spread = nn.Parameter(torch.full((self.pairs.shape[1] * BOND_KINDS,), FIRST_LOG_SPREAD))
        self.atom_log_spread = nn.Parameter(torch.full((nodes, atom_kinds), FIRST_LOG_SPREAD))

    @property
    def dimensions(self) -> int:
        """Count the numbers that a graph is made of: P K + V T."""
        return self.bond_log_spread.numel() + self.atom_log_spread.numel()

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Compute -log p(A, X) of the graphs with noise, in nats a dimension."""
        reduced = self.precision == "bfloat16"
        with torch.autocast(batch.device.type, torch.bfloat16) if reduced else contextlib.nullcontext():
            return -self.log_density(batch, generator).total.mean() / self.dimensions

    # --- density ---

    def log_density(self, graphs: Tensor, generator: torch.Generator) -> LogDensity:
        """Compute the exact log-density of graphs, int8 (B, V, V), with noise that is drawn here."""
        bonds, atoms = self.one_hot(graphs)
        return self.log_density_of(self.noisy(bonds, generator), self.noisy(atoms, generator), bonds)

    def log_density_of(self, noisy_bonds: Tensor, noisy_atoms: Tensor, bonds: Tensor) -> LogDensity:
        """Compute it where noise is there already; `bonds` are those without, which the atoms are conditioned on."""
        bonds_latent, bonds_volume = self.forward_bonds(noisy_bonds)
        atoms_latent, atoms_volume = self.forward_atoms(noisy_atoms, bonds)
        return LogDensity(
            gaussian_log_density(bonds_latent, self.bond_log_spread) + bonds_volume,
            gaussian_log_density(atoms_latent.flatten(1), self.atom_log_spread.flatten()) + atoms_volume,
        )

    def bits_per_dimension(self, log_density: Tensor) -> Tensor:
        """Bound what a graph costs from above, by its total `log_density`; (B,).

        A graph owns the cube, `noise` wide, that its noise is drawn from. By Jensen's inequality the mean of
        -log p over the noise, less the cube's volume, is no less than -log of the graph's own probability.
        """
        return -(log_density / self.dimensions + math.log(self.noise)) / math.log(2)

    # --- sampling ---

    @property
    def sampling_steps(self) -> int:
        return len(self.adjacency_couplings) + len(self.node_couplings)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator, advance: Callable[[int], None] = unreported) -> Tensor:
        """Draw from the prior at this temperature, and invert the flow: graphs, int8 (count, V, V)."""
        spread = self.temperature * torch.cat([self.bond_log_spread, self.atom_log_spread.flatten()]).exp()
        drawn = normal((count, self.dimensions), generator, spread.device).to(spread.dtype)
        return self.decode(drawn * spread, advance)

    @torch.no_grad()
    def encode(self, graphs: Tensor, generator: torch.Generator) -> Tensor:
        """Compute the latent vectors (B, P K + V T) of graphs int8 (B, V, V), with noise that is drawn here."""
        bonds, atoms = self.one_hot(graphs)
        bonds_latent, _ = self.forward_bonds(self.noisy(bonds, generator))
        atoms_latent, _ = self.forward_atoms(self.noisy(atoms, generator), bonds)
        return torch.cat([bonds_latent, atoms_latent.flatten(1)], 1)

    @torch.no_grad()
    def decode(self, latent: Tensor, advance: Callable[[int], None] = unreported) -> Tensor:
        """Compute the graphs int8 (B, V, V) of latent vectors (B, P K + V T): first the bonds, given them the atoms.

        The kind of the largest value counts. For what `encode` was given, that is flooring: its kind has a value from
        1 to 1.9, all others have less than 1.
        """
        bonds_latent, atoms_latent = latent.split([self.bond_log_spread.numel(), self.atom_log_spread.numel()], 1)
        kinds = self.inverse_bonds(bonds_latent, advance).unflatten(1, (-1, BOND_KINDS)).argmax(-1)
        bonds = functional.one_hot(kinds, BOND_KINDS).flatten(1).to(latent.dtype)
        atoms = self.inverse_atoms(atoms_latent.unflatten(1, (self.nodes, self.atom_kinds)), bonds, advance).argmax(-1)
        graphs = torch.diag_embed(atoms.to(torch.int8))
        first, second = self.pairs
        graphs[:, first, second] = graphs[:, second, first] = kinds.to(torch.int8)
        return graphs

    def interpolate(self, ends: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """Walk straight in latent space between two graphs int8 (2, V, V): graphs int8 (steps, V, V)."""
        first, second = self.encode(ends, generator)
        share = torch.linspace(0, 1, steps, dtype=first.dtype, device=first.device)[:, None]
        return self.decode(torch.lerp(first, second, share))

    # --- graphs as numbers ---

    def one_hot(self, graphs: Tensor) -> tuple[Tensor, Tensor]:
        """Encode graphs int8 (B, V, V) as bonds (B, P K) and atoms (B, V, T), 0 or 1."""
        first, second = self.pairs
        kinds, atoms = graphs[:, first, second].long(), graphs.diagonal(dim1=1, dim2=2).long()
        dtype = self.bond_log_spread.dtype
        bonds = functional.one_hot(kinds, BOND_KINDS).flatten(1)
        return bonds.to(dtype), functional.one_hot(atoms, self.atom_kinds).to(dtype)

    def noisy(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """Add uniform noise to the values."""
        noise = torch.rand(values.shape, generator=generator, dtype=values.dtype, device=generator.device)
        return values + self.noise * noise.to(values.device)

    # --- the flow, both ways ---

    def forward_bonds(self, bonds: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the latent of noisy bonds, both (B, P K), and the log-determinant of the Jacobian, (B,)."""
        volume = bonds.new_zeros(len(bonds))
        for coupling in self.adjacency_couplings:
            bonds, log_scales = coupling(bonds)
            volume = volume + log_scales
        return bonds, volume

    def inverse_bonds(self, latent: Tensor, advance: Callable[[int], None] = unreported) -> Tensor:
        """Compute noisy bonds (B, P K) from their latent."""
        for coupling in _last_first(self.adjacency_couplings):
            latent = coupling.inverse(latent)
            advance(1)
        return latent

    def forward_atoms(self, atoms: Tensor, bonds: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the latent of noisy atoms, both (B, V, T), given clean bonds, and the log-determinant, (B,)."""
        volume, around = atoms.new_zeros(len(atoms)), self._around(bonds)
        for coupling in self.node_couplings:
            atoms, log_scales = coupling(atoms, *around)
            volume = volume + log_scales
        return atoms, volume

    def inverse_atoms(self, latent: Tensor, bonds: Tensor, advance: Callable[[int], None] = unreported) -> Tensor:
        """Compute noisy atoms (B, V, T) from their latent, given bonds without noise."""
        around = self._around(bonds)
        for coupling in _last_first(self.node_couplings):
            latent = coupling.inverse(latent, *around)
            advance(1)
        return latent

    def _around(self, bonds: Tensor) -> tuple[Tensor, Tensor]:
        """What every node coupling asks of the bonds: states of the nodes, (B, V, H), and relations (B, V, K, V).

        The relations are adjacency matrices: of single, double and triple bonds, and of every node to all others.
        """
        first, second = self.pairs
        relations = bonds.new_zeros(len(bonds), self.nodes, BOND_KINDS, self.nodes)
        there = bonds.unflatten(1, (-1, BOND_KINDS))[..., 1:]
        relations[:, first, :-1, second] = relations[:, second, :-1, first] = there.transpose(0, 1)
        relations[:, :, -1] = 1 - torch.eye(self.nodes, dtype=bonds.dtype, device=bonds.device)
        return self.surroundings(relations[:, :, :-1]), relations


class Coupling(nn.Module):
    """This is what both couplings share: the places they change, and how.

    Parameters
    ----------
    places : Tensor
        int64 (M,), along the second axis; none of the others changes.
    affine : bool
        Whether there is a scale beside the shift.

    Notes
    -----
    A subclass has `parameters_of(values, *given)`: the network's raw output, twice as many numbers as are changed
    where it is affine, from a tensor of which it must not use the values at `places`. The last layer starts at zero,
    and so the flow as the identity. The log-scale is a hyperbolic tangent, so that one coupling changes a value by a
    factor of e at most.
    """

    places: Tensor
    parameters_of: Callable[..., Tensor]

    def __init__(self, places: Tensor, affine: bool):
        super().__init__()
        self.affine = affine
        self.register_buffer("places", places, persistent=False)

    def forward(self, values: Tensor, *given: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return the changed values, and the sum of the log-scales, (B,) or 0."""
        log_scale, shift = self._scale_and_shift(values, given)
        if log_scale is None:
            return values.index_add(1, self.places, shift), 0.0
        mine = values.index_select(1, self.places) * log_scale.exp() + shift
        return values.index_copy(1, self.places, mine), log_scale.flatten(1).sum(1)

    def inverse(self, values: Tensor, *given: Tensor) -> Tensor:
        log_scale, shift = self._scale_and_shift(values, given)
        mine = values.index_select(1, self.places) - shift
        if log_scale is not None:
            mine = mine * (-log_scale).exp()
        return values.index_copy(1, self.places, mine)

    def _scale_and_shift(self, values: Tensor, given: tuple[Tensor, ...]) -> tuple[Tensor | None, Tensor]:
        shape = (len(values), len(self.places), *values.shape[2:])
        raw = self.parameters_of(values, *given).to(values.dtype)
        if not self.affine:
            return None, raw.view(shape)
        log_scale, shift = raw.chunk(2, dim=1)
        return log_scale.tanh().view(shape), shift.view(shape)


class AdjacencyCoupling(Coupling):
    """Changes the bonds of one node, given the bonds between the others.

    Parameters
    ----------
    node : int
    pairs : Tensor
        int64 (2, P), the nodes of each pair.
    width : int
        H.
    affine : bool
    """

    others: Tensor

    def __init__(self, node: int, pairs: Tensor, width: int, affine: bool):
        mine = (pairs == node).any(dim=0).repeat_interleave(BOND_KINDS)
        super().__init__(mine.nonzero().flatten(), affine)
        self.register_buffer("others", (~mine).float(), persistent=False)
        self.first = nn.Linear(len(mine), width)
        self.norm = nn.LayerNorm(width)
        self.second = nn.Linear(width, width)
        self.last = _zero_linear(width, len(self.places) * (2 if affine else 1))

    def parameters_of(self, bonds: Tensor) -> Tensor:
        # Weights set to zero cost less than picking the columns of the others out of every batch.
        hidden = functional.silu(functional.linear(bonds, self.first.weight * self.others, self.first.bias))
        hidden = hidden + functional.silu(self.second(self.norm(hidden)))
        return self.last(hidden)


class Surroundings(nn.Module):
    """Computes states of the nodes from the bonds alone, by a relational graph network; for all node couplings.

    Each layer adds to a node's state what comes from itself and, over each kind of bond by a matrix of its own, from
    its neighbours (Schlichtkrull et al. 2018). The first state knows the node's place in the order of atoms and how
    many bonds of each kind it has.
    """

    def __init__(self, nodes: int, width: int, layers: int = 3):
        super().__init__()
        self.place = nn.Parameter(0.1 * torch.randn(nodes, width))
        self.degree = nn.Linear(BOND_KINDS - 1, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.messages = nn.ModuleList(nn.Linear(width, BOND_KINDS * width) for _ in range(layers))

    def forward(self, relations: Tensor) -> Tensor:
        """Compute states (B, V, H) from adjacency matrices (B, V, K - 1, V)."""
        states = functional.silu(self.place + self.degree(relations.sum(-1)))
        senders = relations.flatten(2)
        for norm, linear in zip(self.norms, self.messages, strict=True):
            own, *sent = linear(norm(states)).chunk(BOND_KINDS, dim=-1)
            # Over the last axis of `senders`, (B, V, (K - 1) V), run the kinds, then the nodes.
            states = states + functional.silu(own + senders @ torch.cat(sent, 1))
        return states


class NodeCoupling(Coupling):
    """Changes the atom of one node, given the other atoms and the bonds.

    Parameters
    ----------
    node : int
    atom_kinds : int
        T.
    width : int
        H.
    affine : bool
    """

    def __init__(self, node: int, atom_kinds: int, width: int, affine: bool):
        super().__init__(torch.tensor([node]), affine)
        self.node = node
        self.first = nn.Linear(atom_kinds, width)
        self.mix = nn.Linear((1 + BOND_KINDS) * width, width)
        self.norm = nn.LayerNorm(width)
        self.second = nn.Linear(width, width)
        self.last = _zero_linear(width, atom_kinds * (2 if affine else 1))

    def parameters_of(self, atoms: Tensor, states: Tensor, relations: Tensor) -> Tensor:
        # No relation leads from a node to itself, so what its own atom sends does not count.
        sent = functional.silu(self.first(atoms) + states)
        received = relations[:, self.node] @ sent
        hidden = functional.silu(self.mix(torch.cat([states[:, self.node], received.flatten(1)], 1)))
        hidden = hidden + functional.silu(self.second(self.norm(hidden)))
        return self.last(hidden)


class GraphNVPSettings(MoleculeModelSettings):
    """The settings of a GraphNVP."""

    usual = {
        **MoleculeModelSettings.usual,
        "training.batch": 256,
        "graph-nvp.adjacency-turns": 3,
        "graph-nvp.adjacency-width": 256,
        "graph-nvp.node-turns": 2,
    }

    coupling: Literal["affine", "additive"] = setting("affine", description="couplings scale and shift, or only shift")
    adjacency_turns: int = setting(
        by_data="adjacency-turns", ge=1, description="adjacency couplings of each node; auto: 3, for ZINC-250k 1"
    )
    adjacency_width: int = setting(
        by_data="adjacency-width", ge=1, description="hidden units of their networks; auto: 256, for ZINC-250k 128"
    )
    node_turns: int = setting(
        by_data="node-turns", ge=1, description="node couplings of each node; auto: 2, for ZINC-250k 1"
    )
    noise: float = setting(
        0.4, gt=0, lt=1, description="upper end of the uniform noise that makes graphs continuous; the paper's is 0.9"
    )
    precision: Literal["float32", "bfloat16"] = setting(
        "float32", description="of matrix products in training; bfloat16 is faster on processors that have it"
    )


def build(settings: Any) -> GraphNVP:
    """Build the model by the settings of a run, whose `model` is a `GraphNVPSettings`."""
    own: GraphNVPSettings = settings.model
    return GraphNVP(nodes=settings.shape[0], atom_kinds=len(settings.class_names) + 1, **own.model_dump())


REGISTERED = RegisteredModel(GraphNVPSettings, build, ("rdkit",), MoleculeGraphs())


def gaussian_log_density(values: Tensor, log_spread: Tensor) -> Tensor:
    """Compute log N(0, spread^2) of values (B, D) in nats, summed over D; `log_spread` is (D,)."""
    scaled = values * (-log_spread).exp()
    return -(scaled.square() / 2 + log_spread + math.log(2 * math.pi) / 2).sum(1)


def _last_first(couplings: nn.ModuleList) -> Iterator[Coupling]:
    return reversed(cast("Sequence[Coupling]", couplings))


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
