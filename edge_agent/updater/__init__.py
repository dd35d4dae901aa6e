"""The updater: a short-lived process that fetches and verifies releases (`python -m edge_agent.updater`).

Read `__main__.py` first, then `installer.py`. The only process that imports TUF; never another process.
"""
