"""One model slot: its worker, trial, shadow and captures. Runs in the supervisor.

Read `slot.py` first: it advances the update record and acts on it; `worker_lifecycle.py` starts and swaps workers.
"""
