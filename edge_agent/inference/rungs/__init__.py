"""Rungs at work: one variant in its engine, its fast path, how it is, and the pool that they are taken from.

Runs in the worker and wherever a `Runtime` is. Read `rung.py` first, then `pool.py`.
"""
