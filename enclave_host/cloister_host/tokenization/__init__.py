"""Tokens in place of values: policies and the plans they compile to, FF1, the vault."""
