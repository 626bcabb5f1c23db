"""A batch spread over the devices of a mesh."""
