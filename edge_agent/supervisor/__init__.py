"""The supervisor: the process that is always there. It starts and watches every other one and holds no inference code.

Read `supervisor.py` first, then `slots/slot.py`. May import everything below it but numpy, engines and TUF; never
another process.
"""
