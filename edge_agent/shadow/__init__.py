"""The shadow: a process at the lowest priority that answers what others were answered, and counts differences
(`python -m edge_agent.shadow`). All of it is in `__main__.py`. Never imports another process.
"""
