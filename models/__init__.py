"""Networks: model families by name, the paper's 12 Diffusion Transformers and their block designs among them.

Read these first: `dit.py` (sizes), `designs.py` and `blocks.py` (the designs side by side), `transformer.py`
(the network). Importing this package does not import torch; `create_model` and `load_pretrained` do.
"""

from models.designs import DESIGNS
from models.registry import create_model, list_models
from models.weights import load_pretrained

BLOCKS = tuple(DESIGNS.builtin)

__all__ = ["BLOCKS", "create_model", "list_models", "load_pretrained"]
