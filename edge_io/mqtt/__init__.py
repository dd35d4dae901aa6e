"""One client of an MQTT broker over paho-mqtt, for every process of the agent and the fleet. Read `link.py` first."""
