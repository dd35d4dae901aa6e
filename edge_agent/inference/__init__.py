"""The guarded pipeline: check, guard, run, guard. Runs in workers, trials, shadows and as `edge_agent.Runtime`.

Read `runtime.py` first, then `rung.py`. Imports numpy; the supervisor's side never imports this.
"""
