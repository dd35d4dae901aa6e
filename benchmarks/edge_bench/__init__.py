"""The benchmark harness behind `edgewright bench`, on the agent's own engines."""
