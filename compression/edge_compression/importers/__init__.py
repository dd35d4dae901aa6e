"""Models from elsewhere (PyTorch, scikit-learn, MLflow) become ONNX, in a process of their own. Read `prepare.py`
first."""
