"""One module per kind of evidence, each with `authenticate(raw, support, *, at)`; loaded by name."""
