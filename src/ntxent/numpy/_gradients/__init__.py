"""Gradients for NumPy, which has none of its own."""
