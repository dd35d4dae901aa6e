"""Certificates: `python -m edge_agent.enrollment` renews one in a short-lived process; `edgewright agent enroll` gets
the first. Read `client.py` first. The only package besides `capture` that imports cryptography.
"""
