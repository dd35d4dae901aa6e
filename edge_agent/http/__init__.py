"""HTTP/1.1 and the Open Inference Protocol. Runs in the worker, and in `edgewright agent serve`.

Read `oip_app.py` first (what paths answer), then `connection.py` (the bytes).
"""
