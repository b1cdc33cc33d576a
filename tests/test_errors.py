"""The errors that become one line."""

from __future__ import annotations

from wassily.errors import did_you_mean


def test_did_you_mean() -> None:
    """The nearest, or nothing."""
    assert did_you_mean("train_batchsize", ["train_batch_size", "seed"]).endswith(
        "perhaps you meant 'train_batch_size'"
    )
    assert did_you_mean("q", ["train_batch_size"]) == ""
