"""Question sources and packed batches."""
