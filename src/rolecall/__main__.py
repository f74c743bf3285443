"""`python -m rolecall` is the command `rolecall`."""

from __future__ import annotations

import sys

from rolecall.cli import main

sys.exit(main())
