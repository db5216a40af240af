"""The shared vocabulary: rates, batches, fold, counting, settings, errors, lifecycle, telemetry, the store port."""
