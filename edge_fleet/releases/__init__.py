"""Releases: bundles become signed targets; deltas, export, garbage collection. Read `release.py` first."""
