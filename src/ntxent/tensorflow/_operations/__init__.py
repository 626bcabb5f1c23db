"""What the formula asks of TensorFlow."""
