"""FFCV's .beton files: the format and reading it (`format.py`), writing them (`write.py`)."""
