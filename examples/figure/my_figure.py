import pandas as pd

from analysis.drawing import style
from analysis.drawing.picture import Picture
from analysis.figures.captions import in_short, keys, protocols
from analysis.figures.scores import at_last_shared_step, over_seeds, scaling_scores
from analysis.figures.sources import from_each


def draw(sources, width: style.Width = "two"):
    """Parameters against the Fréchet distance."""
    found, left_out = from_each(sources, scaling_scores)
    found = [at_last_shared_step(scores) for scores in found]
    drawn = []
    with style.look():
        figure = style.new_figure(width, 2.5)
        (axes,) = style.panels(figure, 1, 1)
        for scores in found:
            params = dict(zip(scores.runs["label"], scores.runs["params"], strict=True))
            points = over_seeds(scores.evals)
            points["params"] = [params[label] for label in points["label"]]
            axes.plot(points["params"], points["fid"], "o", label=scores.title)
            drawn.append(points)
        axes.set_xlabel("parameters")
        axes.set_ylabel("Fréchet distance")
        axes.legend()
    return Picture("my_figure", figure, pd.concat(drawn), in_short(found), protocols(found), keys(found), left_out)
