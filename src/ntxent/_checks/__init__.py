"""What each argument must be, and what is said of those that are refused."""
