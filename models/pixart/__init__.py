"""PixArt-alpha (arXiv 2310.00426): a DiT with captions. Importing this package imports no torch."""
