"""Keys: root key, tenants' keys and their versions, and what is done with them."""
