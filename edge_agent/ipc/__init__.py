"""What the processes of the agent say to each other: records, one JSON line each, and pages of shared memory.

Every process may import this. No behavior beyond encoding, parsing and passing on.
"""
