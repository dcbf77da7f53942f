"""Confidential functions: registered bundles, the processes they run in, and what may leave them.

This package file stays empty of imports: the worker process, which runs tenant code, imports through it.
"""
