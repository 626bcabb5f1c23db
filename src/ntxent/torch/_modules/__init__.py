"""The losses as modules."""
