"""The same under `torch.compile`, `torch.export`, `torch.func` and forward mode."""
