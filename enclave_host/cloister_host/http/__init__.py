"""The HTTP surface of the host."""
