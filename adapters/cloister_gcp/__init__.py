"""Cloister for Google Cloud: BigQuery remote functions over sealed columns."""
