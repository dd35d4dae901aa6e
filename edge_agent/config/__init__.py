"""agent.toml and device profiles: read, checked, compared. Read `agent_toml.py` first."""
