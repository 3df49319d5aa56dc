from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from models.blocks import AdaLNFinalLayer, SumCondition, modulate
from models.designs import BlockDesign


class ParallelBlock(nn.Module):
    """Attention and MLP side by side, of one norm, as in ViT-22B: half of adaLN-Zero's maps of the condition."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(dim, num_heads, qkv_bias=True)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))

    def initialize(self, std: float) -> None:
        """Every block begins as the identity: its gate is 0."""
        for parameter in self.modulation.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(c).chunk(3, dim=1)
        h = modulate(self.norm(x), shift, scale)
        return x + gate.unsqueeze(1) * (self.attn(h) + self.mlp(h))


PARALLEL = BlockDesign(SumCondition, ParallelBlock, AdaLNFinalLayer)
