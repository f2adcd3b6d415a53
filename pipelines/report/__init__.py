"""The report: one day on one HTML page."""
