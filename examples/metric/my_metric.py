from typing import ClassVar


class Spread:
    """Spread of the samples' features in that of the real ones': 1 is as diverse."""

    columns: ClassVar = {"spread": "spread of features"}
    lower_is_better = False
    needs = ("features", "reference images")

    def compute(self, compared):
        ratio = compared.features.var(dim=0).sum() / compared.reference_features.var(dim=0).sum()
        return {"spread": float(ratio)}


SPREAD = Spread()
