"""Files that people keep samples and truth in, read into rows and columns; folders of them are in `task_folders`."""
