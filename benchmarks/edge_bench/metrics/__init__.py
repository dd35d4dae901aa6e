"""The metrics a task may name, each as a table from which it can be computed for any weighting of its samples.

Read `table.py`, then `registry.py`. A device has none of them beyond `edge_agent.inference.quality_metrics`: it proves
variants by golden answers. Limits and verdicts are in `edge_compression.evaluation`.
"""
