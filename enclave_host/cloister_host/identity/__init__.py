"""Who is asking: principals, their credentials, and the tenants they belong to."""
