"""The generalizable neural feature field: from a deep volume back to pixels, for views that were not given."""
