"""From a catalog of datasets to batches of clips."""
