"""Holds MPGVAE, a variational autoencoder of molecular graphs whose encoder and decoder pass messages.

Flam-Shepherd, Wu and Aspuru-Guzik, "MPGVAE: improved generation of small organic molecules using message passing
neural nets", 2021; chapter 2 of the notes. The encoder reads a graph by message passing over nodes and edges and by
Set2Set into a Gaussian q(z | G), whatever the order of its nodes. The decoder makes node states from z one after the
other, and an unconnected graph of them into probabilities of atoms and bonds by the same message passing.

The reconstruction log p(G | z) is a sum over nodes and pairs of nodes and needs no matching, because the target has an
order, the canonical one of `generative.atom_order`: the recurrent network gives the v-th node a state of its own, and
learns what stands there. So this is the likelihood of one order of the graph, a lower bound on that of the graph in any
order. `order_dependence` measures what follows.

Our choice: all sizes; the constant weight of the divergence; the canonical order as the decoder's; and in a round of
messages the factor n_v and the normalisation of states.

Shapes: B graphs of V nodes; P = V (V - 1) / 2 pairs; K = 4 kinds of bonds and T kinds of atoms, none being one of each;
H and M, widths of node states and of messages; Z latent dimensions. Graphs are int8 (B, V, V), as in
`generative.molecules`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fmtda.generative.atom_order import in_canonical_order, reordered
from fmtda.generative.model import GenerativeModel, RegisteredModel, unreported
from fmtda.generative.molecule_graphs import MoleculeGraphs, MoleculeModelSettings
from fmtda.generative.noise import normal, normal_like
from fmtda.protocol.tables import setting

BOND_KINDS = 4
"""K: none, single, double, triple."""

SET2SET_STEPS = 3
"""How often Set2Set reads the nodes."""


class EvidenceBound(NamedTuple):
    """Holds the parts of the evidence lower bound of graphs in their given order, in nats, each (B,).

    Attributes
    ----------
    atoms, bonds : Tensor
        log p(x | z) over all V nodes, and log p(e | z) over all P pairs, for one z drawn from q(z | G).
    divergence : Tensor
        KL(q(z | G) || p(z)).
    """

    atoms: Tensor
    bonds: Tensor
    divergence: Tensor

    @property
    def total(self) -> Tensor:
        """Compute ELBO = log p(x | z) + log p(e | z) - KL, an estimate of a lower bound on log p(G); (B,)."""
        return self.atoms + self.bonds - self.divergence


class MPGVAE(GenerativeModel):
    """This is the autoencoder of molecular graphs.

    Parameters
    ----------
    nodes : int
        V, at least 2.
    atom_kinds : int
        T, one more than the atom table is long.
    node_width, message_width : int
        H and M.
    latent : int
        Z.
    message_rounds : int
        How often messages are passed in the encoder, and in the decoder; each time by weights of their own.
    divergence_weight : float
        What `loss` multiplies the divergence by; at 1 it is the negative ELBO.
    numbering : {"canonical", "given"}
        Which order the decoder learns: the canonical one, which graphs are brought to and whose numbers the encoder
        sees; or that of the data, without numbers for the encoder, which it would not be invariant with.
    temperature : float
        What `sample` multiplies the prior's spread by.
    categories : {"likeliest", "drawn"}
        What `sample` makes of the probabilities of atoms and bonds: the likeliest kind, as the paper does, or a draw.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    The weight of the divergence is constant: at 1 the latent is ignored for the thousand steps that we looked at (a
    divergence of 0.0 nats, one molecule for every z).
    """

    pairs: Tensor

    def __init__(
        self,
        nodes: int,
        atom_kinds: int,
        node_width: int = 64,
        message_width: int = 32,
        latent: int = 64,
        message_rounds: int = 3,
        divergence_weight: float = 0.2,
        numbering: Literal["canonical", "given"] = "canonical",
        temperature: float = 1.0,
        categories: Literal["likeliest", "drawn"] = "likeliest",
    ):
        super().__init__()
        least = {"nodes": 2, "atom_kinds": 2, "node_width": 1, "message_width": 1, "latent": 1, "message_rounds": 1}
        given = (nodes, atom_kinds, node_width, message_width, latent, message_rounds)
        for (name, smallest), value in zip(least.items(), given, strict=True):
            if value < smallest:
                raise ValueError(f"{name}={value} must be at least {smallest}")
        if divergence_weight < 0:
            raise ValueError(f"divergence_weight={divergence_weight} must be at least 0")
        if categories not in ("likeliest", "drawn"):
            raise ValueError(f"categories={categories!r} is unknown; allowed are likeliest, drawn")
        if numbering not in ("canonical", "given"):
            raise ValueError(f"numbering={numbering!r} is unknown; allowed are canonical, given")
        self.nodes = nodes
        self.latent = latent
        self.numbering = numbering
        self.divergence_weight = divergence_weight
        self.temperature = temperature
        self.categories = categories
        self.register_buffer("pairs", torch.triu_indices(nodes, nodes, 1), persistent=False)
        numbers = nodes if numbering == "canonical" else 0
        self.encoder = Encoder(numbers, atom_kinds, node_width, message_width, latent, message_rounds)
        self.decoder = Decoder(nodes, atom_kinds, node_width, message_width, latent, message_rounds)

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Compute -log p(G | z) + divergence_weight KL(q(z | G) || p(z)) in nats a graph."""
        bound = self.bound(batch, generator)
        return (self.divergence_weight * bound.divergence - bound.atoms - bound.bonds).mean()

    # --- evidence ---

    def bound(self, graphs: Tensor, generator: torch.Generator, targets: Tensor | None = None) -> EvidenceBound:
        """Estimate the evidence lower bound of graphs, int8 (B, V, V).

        Parameters
        ----------
        graphs : Tensor
        generator : torch.Generator
            Source of the draw of z.
        targets : Tensor, optional
            The same graphs in the order of nodes that log p(G | z) is to be taken of; otherwise that of `ordered`.

        Raises
        ------
        ValueError
            If the graphs do not have V nodes.
        """
        graphs = self.ordered(graphs)
        mean, log_variance = self.encoder(graphs)
        z = mean + (log_variance / 2).exp() * normal_like(mean, generator)
        atoms, bonds = self.log_likelihood(graphs if targets is None else targets, z)
        return EvidenceBound(atoms, bonds, divergence_from_prior(mean, log_variance))

    def ordered(self, graphs: Tensor) -> Tensor:
        """Put the graphs, int8 (B, V, V), in the order that encoder and decoder deal with."""
        if graphs.shape[1:] != (self.nodes, self.nodes):
            shape = ", ".join(map(str, graphs.shape))
            raise ValueError(f"graphs ({shape}) must be (B, {self.nodes}, {self.nodes}); build the model for that size")
        return in_canonical_order(graphs) if self.numbering == "canonical" else graphs

    def encode(self, graphs: Tensor) -> tuple[Tensor, Tensor]:
        """Compute mean and log-variance of q(z | G), each (B, Z), of graphs int8 (B, V, V) in any order of nodes."""
        return self.encoder(self.ordered(graphs))

    def log_likelihood(self, graphs: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Compute log p(x | z) and log p(e | z), each (B,): independent categories of nodes, and of each pair once."""
        atom_logits, bond_logits = self.decoder(z)
        first, second = self.pairs
        atoms = _log_probability(atom_logits, graphs.diagonal(dim1=1, dim2=2))
        return atoms, _log_probability(bond_logits[:, first, second], graphs[:, first, second])

    # --- sampling ---

    @property
    def sampling_steps(self) -> int:
        return 1

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator, advance: Callable[[int], None] = unreported) -> Tensor:
        """Draw from the prior at this temperature, and decode: graphs, int8 (count, V, V)."""
        z = self.temperature * normal((count, self.latent), generator, self.pairs.device)
        graphs = self.decode(z, generator)
        advance(1)
        return graphs

    @torch.no_grad()
    def decode(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Decode latent vectors (B, Z) to graphs, int8 (B, V, V); a node that is no atom has no bonds.

        The generator is not used where the likeliest categories are taken.
        """
        atom_logits, bond_logits = self.decoder(z)
        first, second = self.pairs
        atoms, kinds = (self._categories(logits, generator) for logits in (atom_logits, bond_logits[:, first, second]))
        kinds = kinds * ((atoms[:, first] > 0) & (atoms[:, second] > 0))
        graphs = torch.diag_embed(atoms)
        graphs[:, first, second] = graphs[:, second, first] = kinds
        return graphs

    @torch.no_grad()
    def interpolate(self, ends: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """Walk straight between the posterior means of two graphs int8 (2, V, V): graphs int8 (steps, V, V)."""
        (first, second), _ = self.encode(ends)
        share = torch.linspace(0, 1, steps, dtype=first.dtype, device=first.device)[:, None]
        return self.decode(torch.lerp(first, second, share), generator)

    def _categories(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        if self.categories == "likeliest":
            return logits.argmax(-1).to(torch.int8)
        probabilities = logits.softmax(-1).flatten(0, -2).to(generator.device)
        drawn = torch.multinomial(probabilities, 1, generator=generator)
        return drawn.view(logits.shape[:-1]).to(logits.device, torch.int8)


class Encoder(nn.Module):
    """Maps graphs to the mean and the log-variance of q(z | G).

    Messages pass between all atoms, bound or not: whether they are is what the states of the edges begin with. Places
    without an atom take no part. Set2Set (Vinyals et al. 2016) reads the last states of the atoms. None of this depends
    on the order of the nodes, except by the number that each is told where `numbers` is not 0.
    """

    def __init__(
        self,
        numbers: int,
        atom_kinds: int,
        node_width: int,
        message_width: int,
        latent: int,
        message_rounds: int,
    ):
        super().__init__()
        from torch_geometric.nn import Set2Set  # the extra `generative`

        self.numbers = nn.Embedding(numbers, node_width) if numbers else None
        self.atoms = nn.Embedding(atom_kinds, node_width)
        self.bonds = nn.Embedding(BOND_KINDS, message_width)
        self.rounds = nn.ModuleList(MessageRound(node_width, message_width) for _ in range(message_rounds))
        self.readout = Set2Set(node_width, SET2SET_STEPS)
        self.posterior = nn.Sequential(nn.LayerNorm(2 * node_width), nn.Linear(2 * node_width, 2 * latent))

    def forward(self, graphs: Tensor) -> tuple[Tensor, Tensor]:
        """Compute mean and log-variance, each (B, Z), of graphs int8 (B, V, V)."""
        kinds = graphs.diagonal(dim1=1, dim2=2).long()
        there = kinds > 0
        nodes = self.atoms(kinds)
        if self.numbers is not None:
            nodes = nodes + self.numbers.weight
        edges = self.bonds(graphs.long() - torch.diag_embed(kinds))
        incoming = there[:, :, None] & there[:, None, :] & _others(graphs.shape[1], graphs.device)
        for passing in self.rounds:
            nodes, edges = passing(nodes, edges, incoming)
        graph_of = there.nonzero()[:, 0]
        read = self.readout(nodes[there], graph_of, dim_size=len(graphs))
        mean, log_variance = self.posterior(read).chunk(2, dim=-1)
        return mean, log_variance


class Decoder(nn.Module):
    """Maps z to the logits of all atoms and bonds.

    A linear layer gives every node an input, a recurrent network (GRU) reads these in the order of the nodes, and what
    it puts out are the first states. Without it all nodes would begin alike and, message passing being the same for
    all, end alike: it is what tells the v-th node that it is the v-th. Edges begin at zero, an unconnected graph.
    """

    def __init__(
        self, nodes: int, atom_kinds: int, node_width: int, message_width: int, latent: int, message_rounds: int
    ):
        super().__init__()
        self.nodes = nodes
        self.expand = nn.Linear(latent, nodes * node_width)
        self.sequence = nn.GRU(node_width, node_width, batch_first=True)
        self.rounds = nn.ModuleList(
            MessageRound(node_width, message_width, zero_edges=i == 0) for i in range(message_rounds)
        )
        self.atoms = nn.Sequential(nn.LayerNorm(node_width), nn.Linear(node_width, atom_kinds))
        self.bonds = nn.Linear(message_width, BOND_KINDS)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits of atoms (B, V, T) and of bonds (B, V, V, K), these symmetric, of latent vectors (B, Z)."""
        nodes, _ = self.sequence(self.expand(z).unflatten(1, (self.nodes, -1)))
        edges = None
        for passing in self.rounds:
            nodes, edges = passing(nodes, edges, _others(self.nodes, z.device))
        bonds = self.bonds(edges)
        return self.atoms(nodes), bonds + bonds.transpose(1, 2)


class MessageRound(nn.Module):
    """Makes one round of message passing between all nodes, with edge updates, attention and a gated recurrent unit::

        m_vu = tanh(W_v h_v + W_u h_u + W_e e_vu + b)      the message from u to v, and the edge's new state
        a_vu = softmax over u of w . m_vu
        h_v <- GRUCell(n_v sum over u of a_vu m_vu, h_v)

    The notes wonder at the paper's eq. 11, which updates a node by a message with two indices: here the message for a
    node is the attention's mean of what all others send it, times their number n_v. With equal attention that is their
    sum, which can tell how many they are. This factor and the normalisation of h_v and h_u before the linear map both
    make it learn in fewer steps.

    Parameters
    ----------
    node_width, message_width : int
        H and M.
    zero_edges : bool
        Whether the edges are zero yet, so that they need no weights.
    """

    def __init__(self, node_width: int, message_width: int, zero_edges: bool = False):
        super().__init__()
        self.norm = nn.LayerNorm(node_width)
        self.receiver = nn.Linear(node_width, message_width)
        self.sender = nn.Linear(node_width, message_width, bias=False)
        self.edge = None if zero_edges else nn.Linear(message_width, message_width, bias=False)
        self.score = nn.Linear(message_width, 1, bias=False)
        self.update = nn.GRUCell(message_width, node_width)

    def forward(self, nodes: Tensor, edges: Tensor | None, incoming: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the next states of nodes (B, V, H) and edges (B, V, V, M).

        Parameters
        ----------
        nodes : Tensor, (B, V, H)
        edges : Tensor, (B, V, V, M)
            Not used where they are zero.
        incoming : Tensor, bool (B, V, V) or (V, V)
            Which nodes u, on the last axis, send to v.
        """
        # One linear map of [h_v, h_u, e_vu], in three parts: the joint tensor (B, V, V, 2 H + M) is never made.
        normed = self.norm(nodes)
        messages = self.receiver(normed)[:, :, None] + self.sender(normed)[:, None]
        if self.edge is not None:
            messages = messages + self.edge(edges)
        messages = messages.tanh()
        received = (self.attention(messages, incoming) * messages).sum(dim=2) * incoming.sum(-1, keepdim=True)
        states = self.update(received.flatten(0, 1), nodes.flatten(0, 1))
        return states.view_as(nodes), messages

    def attention(self, messages: Tensor, incoming: Tensor) -> Tensor:
        """Compute a_vu as (B, V, V, 1): each node's sum to one over its incoming messages, or are zero without any."""
        scores = self.score(messages).masked_fill(~incoming[..., None], -torch.inf)
        scores = scores.masked_fill(~incoming.any(dim=-1)[..., None, None], 0)
        return scores.softmax(dim=2) * incoming[..., None]


class MPGVAESettings(MoleculeModelSettings):
    """The settings of an MPGVAE."""

    usual = {
        **MoleculeModelSettings.usual,
        "training.batch": 128,
    }

    temperature: float = setting(0.7, ge=0, le=2, description="what the prior's spread is multiplied by in sampling")
    message_width: int = setting(32, ge=1, description="width of messages, which are the states of edges")
    latent: int = setting(64, ge=1, description="dimensions of z")
    message_rounds: int = setting(3, ge=1, description="rounds of message passing in the encoder, and in the decoder")
    divergence_weight: float = setting(
        0.2, ge=0, description="of the divergence in the loss; at 1 it is the negative ELBO"
    )
    numbering: Literal["canonical", "given"] = setting(
        "canonical",
        description="order of atoms that the decoder learns: one that the graph gives itself, or the data's",
    )
    categories: Literal["likeliest", "drawn"] = setting(
        "likeliest", description="what sampling makes of the probabilities of atoms and bonds"
    )


def build(settings: Any) -> MPGVAE:
    """Build the model by the settings of a run, whose `model` is an `MPGVAESettings`."""
    own: MPGVAESettings = settings.model
    return MPGVAE(nodes=settings.shape[0], atom_kinds=len(settings.class_names) + 1, **own.model_dump())


REGISTERED = RegisteredModel(MPGVAESettings, build, ("rdkit", "torch_geometric"), MoleculeGraphs())


def divergence_from_prior(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute KL(N(mean, variance) || N(0, 1)) in nats, summed over the last axis."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1) / 2


class OrderDependence(NamedTuple):
    """Holds the negative ELBO in nats a graph, by which of its two roles a graph is renumbered in at random.

    Attributes
    ----------
    as_trained : float
        In neither: the order that the decoder learns.
    input_permuted : float
        What is encoded, not what is to be reconstructed. As trained, since the encoder is invariant.
    both_permuted : float
        Both. Higher by as much as the decoder has learned of its order.
    """

    as_trained: float
    input_permuted: float
    both_permuted: float


@torch.no_grad()
def order_dependence(model: MPGVAE, graphs: Tensor, generator: torch.Generator) -> OrderDependence:
    """Measure how much the loss depends on the order of nodes; graphs int8 (B, V, V), all with the same draw of z."""
    ordered, renumbered = model.ordered(graphs), permuted(graphs, generator)
    state = generator.get_state()
    bounds = []
    for encoded, targets in ((graphs, ordered), (renumbered, ordered), (renumbered, renumbered)):
        generator.set_state(state)
        bounds.append(-model.bound(encoded, generator, targets).total.mean().item())
    return OrderDependence(*bounds)


def permuted(graphs: Tensor, generator: torch.Generator) -> Tensor:
    """Put the atoms of graphs int8 (B, V, V) in a random order each; places without an atom come last."""
    atoms = graphs.diagonal(dim1=1, dim2=2)
    keys = torch.rand(atoms.shape, generator=generator, device=generator.device).to(atoms.device)
    return reordered(graphs, (keys + (atoms == 0)).argsort(dim=1))


def _log_probability(logits: Tensor, kinds: Tensor) -> Tensor:
    """Of kinds (B, N) under logits (B, N, C), summed: (B,)."""
    losses = functional.cross_entropy(logits.flatten(0, 1), kinds.flatten().long(), reduction="none")
    return -losses.view_as(kinds).sum(1)


def _others(nodes: int, device: torch.device) -> Tensor:
    """bool (V, V): every node hears all but itself."""
    return ~torch.eye(nodes, dtype=torch.bool, device=device)
