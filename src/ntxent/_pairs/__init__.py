"""The one expensive operation, all pairs of rows: what its backends share."""
