"""The search: which recipe is built and measured next, within which budget. Read `driver.py` first.

`build_process.py` is the child process that builds one candidate. Imports `evaluation` and `recipes`, never `report`.
"""
