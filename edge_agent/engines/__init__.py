"""Engines: ONNX Runtime and LiteRT behind one Protocol (`edge_agent.ports.Engine`).

Read `registry.py` first: which engine runs which format, imported only when it is asked for.
"""
