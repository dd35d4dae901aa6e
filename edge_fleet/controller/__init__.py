"""The controller: a service that takes in telemetry and reported state. Read `service.py` first."""
