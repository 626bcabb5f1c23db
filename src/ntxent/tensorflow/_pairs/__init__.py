"""The one expensive operation: all pairs of rows, dense or in tiles."""
