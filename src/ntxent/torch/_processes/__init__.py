"""A batch spread over the processes of a group."""
