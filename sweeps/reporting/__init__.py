"""The answer: summary, report, plots."""
