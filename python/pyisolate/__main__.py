"""`python -m pyisolate`."""

import sys

from pyisolate._cli import main

sys.exit(main())
