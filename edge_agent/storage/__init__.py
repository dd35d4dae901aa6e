"""The state folder: durable files, audit log, time floor. Read `state_dir.py` first."""
