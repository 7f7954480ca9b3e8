"""Feature teachers: 2D foundation models whose dense features the field learns to render, one file each."""
