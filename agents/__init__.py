"""From a volume to an action, and from samples to an agent."""
