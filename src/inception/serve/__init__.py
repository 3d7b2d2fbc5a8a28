"""Bundles behind HTTP: the protocol, dynamic batching in a process of its own, and the page."""
