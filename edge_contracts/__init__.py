"""What every side of Edgewright agrees on: bundle manifest, signed documents, messages, topics, profiles, errors.

Nothing here acts: no socket, no file, no thread, no clock. Nothing here imports another Edgewright room.
Signing and verifying are in `edge_fleet` and `edge_agent`; this room only fixes the bytes they sign and verify.
"""

__version__ = "0.1.0"
