"""``python -m xscale.codegen`` writes the evidence page on generated code."""

import sys

from xscale.codegen.page import main

if __name__ == "__main__":
    sys.exit(main())
