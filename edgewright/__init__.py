"""The command `edgewright` and the demonstration: what ties the rooms together and nothing else depends on."""

from edge_contracts import __version__

__all__ = ["__version__"]
