"""`wassily studio`: generating, comparing, training and checking data in the browser.

What lies in this folder knows nothing of gradio; `page/` is the one owner of it.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from wassily.commands import extras
from wassily.errors import UserError

if TYPE_CHECKING:
    from wassily.config.commands import StudioConfig


def studio(config: StudioConfig) -> None:
    """Serve the pages until Ctrl-C. Raises UserError where gradio is not there."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError(f"the studio needs gradio: {extras.install('studio')}")
    from wassily.studio import page

    page.serve(config)
