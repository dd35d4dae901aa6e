"""Keys, roles and signed TUF metadata. Read `workspace.py` first, then `repository.py`."""
