"""`edgewright agent doctor`: checks of the device and of what it connects to. Read `command.py` first."""
