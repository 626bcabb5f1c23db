"""A batch spread over the replicas of a strategy."""
