"""Bytes in and out of an enclave that has no network: sockets of several families, and the parent's proxy."""

from cloister_host.relay.endpoint import Endpoint

__all__ = ["Endpoint"]
