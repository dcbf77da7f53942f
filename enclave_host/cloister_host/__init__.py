"""The enclave host of Cloister."""
