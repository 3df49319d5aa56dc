"""Diffusion Transformers: the paper's 12 configurations and five block designs.

Read these first: `registry.py` (names and sizes), `blocks.py` (the designs side by side), `dit.py` (the model).
Importing this package does not import torch; `create_model` and `load_pretrained` do.
"""

from models.registry import BLOCKS, create_model, list_models
from models.weights import load_pretrained

__all__ = ["BLOCKS", "create_model", "list_models", "load_pretrained"]
