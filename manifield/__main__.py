"""`python -m manifield`, the same as the command `manifield`."""

import sys

from manifield.command import main

sys.exit(main())
