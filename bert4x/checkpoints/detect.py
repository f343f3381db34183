"""The earlier home of `open_checkpoint`, from which scripts import it."""

from bert4x.checkpoints.opening import open_checkpoint

__all__ = ["open_checkpoint"]
