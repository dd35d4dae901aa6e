"""The box: sensors, governor, memory limits, scheduling, logs, systemd. Read `governor.py` and `sensors.py` first."""
