"""What the formula asks of JAX."""
