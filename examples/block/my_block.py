# my_block.py
import torch
from torch import Tensor, nn

from models.blocks import AdaLNFinalLayer, SumCondition
from models.designs import BlockDesign


class MeanBlock(nn.Module):
    """No attention: every token is mixed with the mean of all."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mix = nn.Linear(2 * dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, int(dim * mlp_ratio)), nn.GELU(), nn.Linear(int(dim * mlp_ratio), dim))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        normed = self.norm(x + c.unsqueeze(1))
        mean = normed.mean(dim=1, keepdim=True).expand_as(normed)
        x = x + self.mix(torch.cat([normed, mean], dim=-1))
        return x + self.mlp(x)


MEAN = BlockDesign(SumCondition, MeanBlock, AdaLNFinalLayer, operators={"aten::mean": None, "aten::expand_as": None})
