"""The device's key and certificate on the disk, and what is said about them. Read `files.py` first."""
