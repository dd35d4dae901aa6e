"""The connection to an MQTT broker. Used by the supervisor and by `enrollment`. Read `client.py` first."""
