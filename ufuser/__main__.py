"""`python -m ufuser` is `ufuser`."""

from __future__ import annotations

import sys

from ufuser.cli import main

if __name__ == "__main__":
    sys.exit(main())
