"""What --preset sets."""

from __future__ import annotations

import pytest
from e2e import ROLES

from wassily.config import presets
from wassily.config.training import DecoderPlan, PriorPlan

PLANS = {"prior": PriorPlan, "decoder": DecoderPlan}


@pytest.mark.parametrize("role", ROLES)
def test_presets_are_good_flags_from_large_to_small(role: str) -> None:
    """Each makes a config, under a name that the flag takes; sizes fall."""
    known = presets.PRESETS[role]
    assert all(PLANS[role](preset=name, **values) for name, values in known.items())
    sizes = [presets.size(name) for name in known]
    assert sizes == sorted(sizes, reverse=True)
