"""Inference over MQTT, and Home Assistant. Runs in the supervisor.

Read `gateway.py` first: it has the connection; `slot_bridge.py` has one slot's topics.
"""
