"""Pytest fixtures for users of Cloister: an embedded host for their own tests."""
