"""The worker: one process for each slot, which answers its requests (`python -m edge_agent.worker`).

Read `__main__.py` first. May import `http`, `inference`, `capture` and what is below them; never another process.
"""
