"""Who may connect to the broker: authority, claims, the enrollment service. Read `authority.py` first."""
