"""Worlds an agent can act in; all speak `Observation`, `Action` and `Environment` (see `envs.interface`)."""
