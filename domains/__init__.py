"""Where examples come from: one file a family of domains, one registry, partitioning over clients."""

from domains.examples import DataError, Examples
from domains.registry import FAMILIES

__all__ = ["FAMILIES", "DataError", "Examples"]
