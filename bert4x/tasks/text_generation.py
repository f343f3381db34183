"""Writing on from a prompt: what a language model was pretrained for."""

from collections.abc import Sequence


class TextGeneration:
    """`model.generate` as a pipeline, on a model that is loaded with the application "lm" or "unilm"."""

    def __init__(self, model):
        self.model, self.tokenizer = model, model.tokenizer

    def __call__(self, texts: str | Sequence[str], **options):
        """The continuation of a text, or of each of a list of them. The options are those of
        `bert4x.generation.GenerationOptions`.

        Raises: GenerationError before anything is computed.
        """
        return self.model.generate(texts, **options)
