"""Diffusion U-Nets: sizes (`config.py`), what they cost (`cost.py`), the network (`network.py`)."""
