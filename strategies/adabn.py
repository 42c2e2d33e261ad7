"""AdaBN: no client trains; each predicts with BatchNorm statistics of its own. The client's side is `clients.adabn`.

Li et al., "Revisiting batch normalization for practical domain adaptation", 2016.
"""

from fmtda.strategies.source_only import SourceOnly


class AdaBN(SourceOnly):
    """On the server the same as source-only."""
