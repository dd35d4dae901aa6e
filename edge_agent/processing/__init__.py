"""The arithmetic of declared processing, in NumPy: one implementation for compression, benchmark and agent.

What the steps mean for shapes is in `edge_contracts.processing` and `edge_contracts.answering`.
"""
