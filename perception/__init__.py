"""From pixels to a volume, and from a volume back to pixels."""
