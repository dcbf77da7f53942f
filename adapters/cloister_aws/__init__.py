"""Cloister for AWS: Lambda decorators and S3 helpers for sealed values."""
