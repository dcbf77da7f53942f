"""Several hosts of one deployment: which machines may join, and how keys go from one to another."""
