"""What leaves the device: windows, events, drift, OTLP. Runs in the supervisor.

Read `uplink.py` first; the spool is `outbox.py`.
"""
