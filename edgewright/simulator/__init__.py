"""A fleet of thin devices for `edgewright fleet simulate`: real MQTT connections, the agent's own decisions.

Read `rehearsal.py` first: it starts a broker, a depot and a controller as child processes, and some processes of
devices (`host.py`). A device (`device.py`) keeps its update record by `edge_agent.update`, looks for updates as the
agent's updater does (`looking.py`), and does nothing else for real: what the scenario says (`scenario.py`) stands for
its model, its link and its power.
"""
