"""How good a candidate is: quality with intervals, latency, memory, and what dominates what. Read `evaluator.py` first.

`layer_errors.py` is a child process of its own. Imports no `search` and no `report`.
"""
