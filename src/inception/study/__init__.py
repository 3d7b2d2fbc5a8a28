"""The study: the paper's and the lecture's claims, each a small experiment; and pictures of live models."""
