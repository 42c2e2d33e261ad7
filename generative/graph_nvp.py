"""GraphNVP: an invertible flow from a molecule's bonds and atoms to Gaussian noise, and back."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Coupling(nn.Module):
    """y = x on the rest, y = x * exp(s(rest)) + t(rest) on one node's values."""

    def __init__(self, affine: bool, limit: float = 1.0):
        super().__init__()
        self.affine = affine
        self.limit = limit

    def split(self, out: Tensor) -> tuple[Tensor | None, Tensor]:
        if not self.affine:
            return None, out
        raw, shift = out.chunk(2, dim=-1)
        return self.limit * torch.tanh(raw / self.limit), shift


class AdjacencyCoupling(Coupling):
    def __init__(self, pairs: Tensor, node: int, kinds: int, width: int, depth: int, affine: bool):
        super().__init__(affine)
        mine = (pairs == node).any(dim=1)
        columns = mine.repeat_interleave(kinds)
        self.register_buffer("columns", columns.nonzero().flatten(), persistent=False)
        self.register_buffer("keep", (~columns).float(), persistent=False)
        outputs = len(self.columns) * (2 if affine else 1)
        self.inward = nn.Linear(len(columns), width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.outward = nn.Linear(width, outputs)
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(self.outward.bias)

    def parameters_of(self, a: Tensor):
        h = functional.silu(functional.linear(a, self.inward.weight * self.keep, self.inward.bias))
        for lin, norm in zip(self.hidden, self.norms):
            h = h + functional.silu(lin(norm(h)))
        return self.split(self.outward(h).to(a.dtype))

    def forward(self, a):
        s, t = self.parameters_of(a)
        if s is None:
            return a.index_add(1, self.columns, t), 0.0
        mine = a.index_select(1, self.columns)
        return a.index_copy(1, self.columns, mine * s.exp() + t), s.sum(1)

    def inverse(self, a):
        s, t = self.parameters_of(a)
        mine = a.index_select(1, self.columns) - t
        if s is not None:
            mine = mine * (-s).exp()
        return a.index_copy(1, self.columns, mine)


class Trunk(nn.Module):
    """Node states from bonds alone: relational graph convolutions."""

    def __init__(self, size, relations, width, layers):
        super().__init__()
        self.place = nn.Parameter(torch.randn(size, width) * 0.1)
        self.degree = nn.Linear(relations, width)
        self.own = nn.ModuleList(nn.Linear(width, (1 + relations) * width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))

    def forward(self, relation):  # (B, V, V, R)
        B, V, _, R = relation.shape
        h = functional.silu(self.place + self.degree(relation.sum(2)))
        flat = relation.transpose(2, 3).reshape(B, V, R * V)  # (B, V, R*V)
        for lin, norm in zip(self.own, self.norms):
            mixed = lin(norm(h)).view(B, V, 1 + R, -1)
            messages = flat @ mixed[:, :, 1:].transpose(1, 2).reshape(B, R * V, -1)
            h = h + functional.silu(mixed[:, :, 0] + messages)
        return h


class NodeCoupling(Coupling):
    def __init__(self, node, size, types, relations, width, affine):
        super().__init__(affine)
        self.node = node
        self.x_in = nn.Linear(types + width, width)
        self.mix = nn.Linear(width * (relations + 2), width)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.outward = nn.Linear(width, types * (2 if affine else 1))
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(self.outward.bias)
        keep = torch.ones(size, 1)
        keep[node] = 0
        self.register_buffer("keep", keep, persistent=False)

    def parameters_of(self, x, states, weights):
        # weights (B, V, R+1, V): relations and the global sum
        u = functional.silu(self.x_in(torch.cat([x * self.keep, states], -1))) * self.keep
        messages = weights[:, self.node] @ u  # (B, R+1, W)
        h = functional.silu(self.mix(torch.cat([states[:, self.node], messages.flatten(1)], -1)))
        h = h + functional.silu(self.hidden(self.norm(h)))
        return self.split(self.outward(h).to(x.dtype))

    def forward(self, x, states, weights):
        s, t = self.parameters_of(x, states, weights)
        mine = x[:, self.node]
        if s is not None:
            mine = mine * s.exp()
        y = torch.cat([x[:, : self.node], (mine + t)[:, None], x[:, self.node + 1 :]], 1)
        return y, (0.0 if s is None else s.sum(1))

    def inverse(self, y, states, weights):
        s, t = self.parameters_of(y, states, weights)
        mine = y[:, self.node] - t
        if s is not None:
            mine = mine * (-s).exp()
        return torch.cat([y[:, : self.node], mine[:, None], y[:, self.node + 1 :]], 1)


class GraphNVP(nn.Module):
    def __init__(
        self,
        size=9,
        types=5,
        kinds=4,
        adj=27,
        node=27,
        width=256,
        depth=1,
        node_width=64,
        affine=True,
        node_affine=True,
        noise=0.9,
        order="cycle",
        trunk_layers=3,
    ):
        super().__init__()
        self.size, self.types, self.kinds, self.noise = size, types, kinds, noise
        pairs = torch.triu_indices(size, size, 1).T
        self.register_buffer("pairs", pairs, persistent=False)
        nodes = list(range(size))
        if order == "reverse":
            nodes = nodes[::-1]
        self.adj = nn.ModuleList(
            AdjacencyCoupling(pairs, nodes[i % size], kinds, width, depth, affine) for i in range(adj)
        )
        self.trunk = Trunk(size, kinds - 1, node_width, trunk_layers)
        self.nodes = nn.ModuleList(
            NodeCoupling(nodes[i % size], size, types, kinds - 1, node_width, node_affine) for i in range(node)
        )
        self.a_scale = nn.Parameter(torch.full((len(pairs), kinds), -0.7))
        self.x_scale = nn.Parameter(torch.full((size, types), -0.7))
        self.dims = len(pairs) * kinds + size * types

    def one_hot(self, graphs):
        a = functional.one_hot(graphs[:, self.pairs[:, 0], self.pairs[:, 1]].long(), self.kinds)
        x = functional.one_hot(graphs.diagonal(dim1=1, dim2=2).long(), self.types)
        return a, x

    def relation(self, a):
        """One-hot bonds (B, P, 4) as (B, V, V, 3)."""
        r = a.new_zeros(len(a), self.size, self.size, self.kinds - 1)
        r[:, self.pairs[:, 0], self.pairs[:, 1]] = a[..., 1:]
        r[:, self.pairs[:, 1], self.pairs[:, 0]] = a[..., 1:]
        return r

    def condition(self, a):
        r = self.relation(a)
        w = torch.cat([r.transpose(2, 3), r.new_ones(len(r), self.size, 1, self.size)], 2)
        return self.trunk(r), w

    def log_density(self, graphs, g):
        a1, x1 = self.one_hot(graphs)
        dt = self.a_scale.dtype
        a = a1.to(dt) + self.noise * torch.rand(a1.shape, generator=g, dtype=dt)
        x = x1.to(dt) + self.noise * torch.rand(x1.shape, generator=g, dtype=dt)
        states, weights = self.condition(a1.to(dt))
        ld_a = 0.0
        a = a.flatten(1)
        for c in self.adj:
            a, d = c(a)
            ld_a = ld_a + d
        ld_x = 0.0
        for c in self.nodes:
            x, d = c(x, states, weights)
            ld_x = ld_x + d
        return gauss(a, self.a_scale.flatten()) + ld_a, gauss(x, self.x_scale) + ld_x

    def loss(self, graphs, g):
        la, lx = self.log_density(graphs, g)
        return -(la + lx).mean() / self.dims

    @torch.no_grad()
    def sample(self, count, g, ta=0.7, tx=0.7):
        a = torch.randn(count, len(self.pairs), self.kinds, generator=g) * self.a_scale.exp() * ta
        a = a.flatten(1)
        for c in reversed(self.adj):
            a = c.inverse(a)
        a = a.view(count, -1, self.kinds)
        a1 = functional.one_hot(a.argmax(-1), self.kinds).to(a.dtype)
        states, weights = self.condition(a1)
        x = torch.randn(count, self.size, self.types, generator=g) * self.x_scale.exp() * tx
        for c in reversed(self.nodes):
            x = c.inverse(x, states, weights)
        graphs = torch.zeros(count, self.size, self.size, dtype=torch.int8)
        b = a.argmax(-1).to(torch.int8)
        graphs[:, self.pairs[:, 0], self.pairs[:, 1]] = b
        graphs[:, self.pairs[:, 1], self.pairs[:, 0]] = b
        graphs.diagonal(dim1=1, dim2=2).copy_(x.argmax(-1))
        return graphs


def gauss(z, log_scale):
    return (-0.5 * (z * (-log_scale).exp()).square() - log_scale - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)
