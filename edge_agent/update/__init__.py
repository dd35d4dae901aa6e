"""A slot's update as a state machine: pure, all of it. Runs in the supervisor.

Read `state_machine.py` first: the table of what may follow what.
"""
