"""Data sets of clips: (C, T, H, W), T frames of C channels."""
