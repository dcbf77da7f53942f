"""Code that the zygote rehearses with; see `rehearse`."""
