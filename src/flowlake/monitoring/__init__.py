"""Metrics for Prometheus: their declarations, the text format, and how they are handed over. Rules and dashboards lie beside."""
