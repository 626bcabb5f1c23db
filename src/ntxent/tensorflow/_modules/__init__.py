"""The losses as Keras has them."""
