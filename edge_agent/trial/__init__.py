"""The trial: a throw-away process that proves a release on this device before it serves (`python -m edge_agent.trial`).

Read `__main__.py` first; `variant.py` tries one variant, in a process of its own. Never imports another process.
"""
