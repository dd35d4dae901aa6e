"""Evidence of a rollout: whether what devices report is enough to stop it. Pure; the controller gathers and acts.

Read `e_process.py` first, then `verdict.py`.
"""
