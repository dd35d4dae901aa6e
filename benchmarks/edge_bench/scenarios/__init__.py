"""Scenarios by MLPerf's names and rules: how load is put on a model, and what is said of the latencies."""
