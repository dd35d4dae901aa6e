"""Decisions of the agent as pure functions and tables: no socket, file, thread, clock or native library."""
