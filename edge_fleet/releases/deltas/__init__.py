"""Deltas between two releases, tensor by tensor. Read `build.py` first."""
