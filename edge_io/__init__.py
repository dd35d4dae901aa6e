"""Bytes and sockets that the agent and the fleet's services share: files, model files, MQTT. It decides nothing.

It runs in every process that reads or writes; it imports nothing of ours, and raises OSError or ValueError, which the
caller turns into the error of its own package. What may live here is in `docs/decisions` ("edge_io"). Read first:
`durable_files.py`, `onnx_tensors.py`, `mqtt/session.py`.
"""
