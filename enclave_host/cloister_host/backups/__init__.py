"""Backups of the whole deployment: taken by its operator, restored into an empty store."""
