"""Looking at episodes in the browser: `manifield view`."""
