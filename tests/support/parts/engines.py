"""What `test_engines.py` and `test_engines_processes.py` share."""


def write(path, data):
    path.write_bytes(data)
    return path
