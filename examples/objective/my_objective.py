from torch import Tensor, nn

from bench.objectives import Objective
from bench.objectives.iddpm import IDDPM


class L1(IDDPM):
    """The noise's absolute error instead of its square; the variance is fixed."""

    columns = ("loss",)

    @classmethod
    def check(cls, options, in_channels: int, out_channels: int) -> None:
        Objective.check(options, in_channels, out_channels)

    def losses(self, network: nn.Module, x0: Tensor, condition, drawn: dict[str, Tensor]) -> dict[str, Tensor]:
        xt = self.diffusion.q_sample(x0, drawn["t"], drawn["noise"])
        predicted = network(xt, self.diffusion.timesteps[drawn["t"]], condition).float()
        return {"loss": (predicted - drawn["noise"]).abs().flatten(1).mean(1)}
