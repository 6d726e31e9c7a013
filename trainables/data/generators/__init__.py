"""Labelled clips of virtual humans, rendered from motion capture (SynAPT's idea)."""
