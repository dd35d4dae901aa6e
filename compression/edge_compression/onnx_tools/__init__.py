"""Reading and changing ONNX graphs. Used by passes; imports none of them. Read `graph.py` first."""
