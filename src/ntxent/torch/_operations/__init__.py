"""What the formula and its closed form ask of PyTorch."""
