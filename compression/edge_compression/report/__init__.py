"""What a search found, as text, JSON and one HTML page. Read `model.py` first."""
