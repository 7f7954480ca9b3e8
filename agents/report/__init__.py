"""A run's results as one page: pictures, charts, film strips, tables."""
