"""The commands `edgewright agent ...` and `edgewright bundle ...`. One module for each command; nobody imports this."""
