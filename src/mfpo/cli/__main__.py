"""``python -m mfpo.cli``, for launchers such as ``accelerate launch -m mfpo.cli train ...``."""

import sys

from mfpo.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
