"""The suite that certifies brokers: every sentence of `brokers.base`, against the real thing."""
