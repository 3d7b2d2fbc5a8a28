"""Diagrams of live networks as SVG."""
