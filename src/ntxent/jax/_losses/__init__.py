"""The public functions: words and defaults."""
