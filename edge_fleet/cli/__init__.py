"""The commands `edgewright fleet ...`. Nobody imports this."""
