"""The device's settings for its link to a broker. Used by the supervisor, the updater, `enrollment` and `doctor`.

The link itself is `edge_io.mqtt.link`. Read `client.py` first.
"""
