"""`python -m loraloom`, and `accelerate launch -m loraloom train ...`."""

import sys

from loraloom.cli import main

if __name__ == "__main__":
    sys.exit(main())
