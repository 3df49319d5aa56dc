"""diffusers' `DiTTransformer2DModel`, made to compute what the official DiT code computes.

A copy of this file is part of every exported model, and is what `DiTPipeline.from_pretrained(folder,
trust_remote_code=True)` runs. So it imports diffusers and torch, and nothing of the suite.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
from diffusers.models.embeddings import Timesteps
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from torch import Tensor

# In the configuration instead of `ada_norm_zero`: the plain class refuses it, where it would compute something else.
NORM_TYPE = "ada_norm_zero_official_frequencies"

# The label that `DiTPipeline` guides against, whatever the number of classes.
PIPELINE_NULL_LABEL = 1000


class OfficialDiTTransformer2DModel(DiTTransformer2DModel):
    """As its base class, with three differences.

    The timestep frequencies are max_period^(-i / half), as in the official code, not ^(-i / (half - 1)). The position
    table is stored with the weights. `PIPELINE_NULL_LABEL` means the last row of the label table.
    """

    @wraps(DiTTransformer2DModel.__init__)  # diffusers reads the accepted configuration keys off the signature
    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **(config | {"norm_type": "ada_norm_zero"}))
        self.register_to_config(norm_type=NORM_TYPE)
        table = self.pos_embed.pos_embed
        assert isinstance(table, Tensor)
        self.pos_embed.register_buffer("pos_embed", table, persistent=True)
        for module in self.modules():
            if isinstance(module, Timesteps):
                module.downscale_freq_shift = 0

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Any = None,
        class_labels: Any = None,
        cross_attention_kwargs: Any = None,
        return_dict: bool = True,
    ) -> Any:
        """hidden_states (N, C, H, W), timestep (N,), class_labels (N,) int64; returns what the base class returns."""
        null_label = self.config["num_embeds_ada_norm"]
        labels: Any = torch.where(class_labels == PIPELINE_NULL_LABEL, null_label, class_labels)
        return super().forward(hidden_states, timestep, labels, cross_attention_kwargs, return_dict)
