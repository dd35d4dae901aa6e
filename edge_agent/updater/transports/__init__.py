"""Transports: how pieces of the repository reach the device: over MQTT, HTTP or from a folder. Runs in the updater.

None is trusted: what they bring is checked in `trusted_repository.py` and `download.py`. All are safe to call from
several threads, which is how a window of requests is kept in flight.
"""
