"""Where bert4keras' scripts look for its decoder: `from bert4x.snippets import AutoRegressiveDecoder`."""

from bert4x.generation.auto_regressive import AutoRegressiveDecoder

__all__ = ["AutoRegressiveDecoder"]
