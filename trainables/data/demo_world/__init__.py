"""The demo's videos, rendered: virtual humans, human-free scenes and two downstream datasets."""
