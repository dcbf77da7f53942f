"""Secrets a tenant gives the host to send to declared origins; nobody reads them back."""

from cloister_host.secrets.service import Secrets, SecretValue

__all__ = ["SecretValue", "Secrets"]
