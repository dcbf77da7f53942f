"""Cloister for Azure: functions that accept deliveries proven to come from an enclave."""
