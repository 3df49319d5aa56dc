"""Files of networks: where they are (`assets.py`), how they get there, and what they say of themselves.

Importing this package imports no torch.
"""
