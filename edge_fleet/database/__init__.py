"""Tables of telemetry and certificates, by SQLAlchemy. Read `engine.py` first."""
