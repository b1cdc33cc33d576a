"""How the bundled model is made."""

import wassily  # noqa: F401  # before torch, whose threads are told how to wait
