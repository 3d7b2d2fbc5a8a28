"""Foreign weights in, bundles in and out."""
