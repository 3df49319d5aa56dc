"""How pictures look and are written: style, markers, labels, captions. What they show is in `analysis.figures`."""
