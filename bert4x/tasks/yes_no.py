"""A language model that is asked whether a text answers a query, and says yes or no: Qwen3-Reranker."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bert4x.checkpoints.opening import open_checkpoint
from bert4x.errors import ConfigError, TokenizerError
from bert4x.families import family_of
from bert4x.generation.batch import Prompt
from bert4x.generation.prompt import plain_ids
from bert4x.generation.score import next_logits
from bert4x.hub.names import local
from bert4x.tasks.judge import Judge
from bert4x.tasks.text import batches_by_length

# As its authors ask it (the card of Qwen/Qwen3-Reranker-0.6B).
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
ANSWERS = ("no", "yes")
LONGEST = 8192


class YesNoReranker(Judge):
    """A causal language model as a judge of answers: the probability of "yes" for the next token, against "no".

    Source: Zhang et al. 2025 (arXiv 2506.05176).

    Args:
        model: of the application "lm", with its tokenizer.
        instruction: what is asked for, in a sentence; by default, passages that answer a search.
        maxlen: tokens of a prompt, at most; the query and the text are cut at their end.
    Raises: TokenizerError where "yes" or "no" is no token; ConfigError where `maxlen` leaves no room.
    """

    def __init__(self, model, instruction: str = INSTRUCTION, maxlen: int = LONGEST):
        self.model, self.instruction, self.told = model, instruction, False
        answers = [plain_ids(model.tokenizer, answer) for answer in ANSWERS]
        if [len(ids) for ids in answers] != [1, 1]:
            raise TokenizerError('"yes" and "no" are no tokens of this vocabulary; expected one of Qwen3-Reranker')
        self.answers = [ids[0] for ids in answers]
        self.before, self.after = (plain_ids(model.tokenizer, text) for text in (BEFORE, AFTER))
        self.room = min(maxlen, model.config.max_position - 1) - len(self.before) - len(self.after)
        if self.room < 8:
            least = len(self.before) + len(self.after) + 8
            raise ConfigError(f"maxlen = {maxlen}; what a reranker is asked takes {least} tokens or more")

    @classmethod
    def load(cls, source: str | os.PathLike, instruction: str = INSTRUCTION, maxlen: int = LONGEST, **options):
        """A folder or a name. Options are those of `bert4x.load`."""
        from bert4x.models.build import load

        return cls(load(source, application="lm", **options), instruction, maxlen)

    def judged(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> np.ndarray:
        """The differences of the logits of "yes" and "no". Shape: N pairs -> (N,)"""
        prompts = [self.prompt(*pair) for pair in pairs]
        logits = np.zeros((len(prompts), 2))
        for places in batches_by_length([len(prompt.ids) for prompt in prompts], batch_size):
            logits[places] = next_logits(self.model, [prompts[i] for i in places], self.answers)
        return logits[:, 1] - logits[:, 0]

    def prompt(self, query: str, text: str) -> Prompt:
        """What is asked of a pair."""
        asked = f"<Instruct>: {self.instruction}\n<Query>: {query}\n<Document>: {text}"
        ids = plain_ids(self.model.tokenizer, asked)
        if len(ids) > self.room and not self.told:
            self.told = True
            warnings.warn(f"a pair has {len(ids)} tokens, and is cut at {self.room} (said once)", stacklevel=5)
        ids = np.array([*self.before, *ids[: self.room], *self.after], "int32")
        return Prompt(ids, np.zeros_like(ids))


def is_language_model(source: str | os.PathLike) -> bool:
    """Whether a checkpoint is of a causal language model, without the head of a task."""
    checkpoint = open_checkpoint(Path(local(source)).expanduser())
    return checkpoint.head is None and family_of(checkpoint.config.model).causal
