"""Networks of clips, x (N, C, T, H, W): a DiT, a U-Net, and the causal convolutions of autoencoders of clips."""
