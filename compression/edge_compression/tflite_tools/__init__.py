"""Reading and changing TFLite models. Used by passes; imports none of them. Read `graph.py` first."""
