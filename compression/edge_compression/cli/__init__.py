"""The command `edgewright compress`. Nobody imports this."""
