"""Meters of energy: what a machine or board takes, by what is there to measure it."""
