"""What is collected: the tests of training and of scikit-learn need what only their extras install."""

import importlib.util

NEEDS = {"torch": ["test_distill.py", "test_import_torch.py"], "skops": ["test_import_sklearn.py"]}
collect_ignore = [file for module, files in NEEDS.items() if importlib.util.find_spec(module) is None for file in files]
