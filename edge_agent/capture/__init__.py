"""Sealed captures of requests: record, sealing, ring on the disk. Written by the worker, counted by the supervisor.

Read `record.py` first.
"""
