"""From behaviour to training samples: collect, store in RLBench's format, find key-frames, augment, load."""
