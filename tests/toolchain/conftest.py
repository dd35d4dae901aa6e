"""What is collected: the tests of training need torch, which only the extra `train` installs."""

import importlib.util

NEED_TORCH = ["test_distil.py", "test_import_torch.py"]
collect_ignore = [] if importlib.util.find_spec("torch") is not None else NEED_TORCH
