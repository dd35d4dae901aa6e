"""Rollouts: what a channel says, and how it may change. Read `rollout.py` first."""
