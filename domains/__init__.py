"""Says where examples come from: one file a family of domains, one registry, partitioning over clients."""

from fmtda.domains.examples import DataError, Examples
from fmtda.domains.registry import FAMILIES

__all__ = ["FAMILIES", "DataError", "Examples"]
