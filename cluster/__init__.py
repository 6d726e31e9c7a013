"""Where it runs: the only place that knows Ray and MLflow."""
