"""GPT: the post-norm decoder of Radford et al. 2018 ("Improving Language Understanding by Generative Pre-Training");
and CDial-GPT (Wang et al. 2020, arXiv 2008.03946), which adds the embeddings of tokens that stand for speakers.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from bert4x.checkpoints.spec import Rule, Table
from bert4x.config import ConfigStyle, TransformerConfig
from bert4x.errors import ConfigError
from bert4x.families import bert, gpt2, register_family
from bert4x.families.parts import EMBEDDINGS, SLOTS, block
from bert4x.families.parts import KEYS as BERT_KEYS

HF = gpt2.HF.of(
    "gpt",
    classes=("GPT2", "OpenAIGPT"),
    without=("Embedding-", "Output-Norm"),
    rules=(Rule("Embedding-{Token,Position}/embeddings", "transformer.{tokens_embed,positions_embed}.weight"),),
)
BERT4KERAS = Table(
    "tf1",
    "gpt",
    rules=tuple(
        replace(rule, theirs=rule.theirs.replace("bert/", "gpt/").replace("/encoder/", "/transformer/"))
        for rule in bert.GOOGLE.rules
        if rule.ours.startswith(("Embedding-{", "Embedding-Position", "Transformer-"))
    ),
    backbone=r"gpt/",
    ignored=SLOTS,
)
KEYS = gpt2.KEYS | {"hidden_act": ("afn", "hidden_act"), "segment_vocab_size": ("type_vocab_size",)}
DEFAULTS = gpt2.DEFAULTS | {"max_position": 512}


@dataclass(frozen=True, kw_only=True)
class GptConfig(TransformerConfig):
    """With `shared_segment_embeddings`, segment ids are ids of tokens, and have the embeddings of these."""

    shared_segment_embeddings: bool = False

    @property
    def segment_rows(self) -> int:
        return self.vocab_size if self.shared_segment_embeddings else self.segment_vocab_size


@register_family
class Gpt(gpt2.Gpt2):
    """Causal whatever the application, except `unilm`; padding and outputs are those of `Gpt2`.

    `load(..., shared_segment_embeddings=True)` is for CDial-GPT, whose config files do not say it: segment ids are then
    the ids of the tokens of speakers, and what is generated has the segment of the last token of its prompt.

    Raises: ConfigError for a UniLM whose segments are tokens.
    """

    model_name = "gpt"
    bare_prompts = False
    start_differs = False
    config_class = GptConfig
    config_files: ClassVar = {}
    unused: ClassVar = {name: value for name, value in gpt2.Gpt2.unused.items() if name != "segment_vocab_size"}
    variables = (*EMBEDDINGS[:3], *block("Transformer-{i}"))
    absent: ClassVar = gpt2.Gpt2.absent | {
        "Embedding-Segment/": lambda c: c.shared_segment_embeddings or not c.segment_vocab_size
    }
    tables = (replace(HF, ignored=(*HF.ignored, r"position_ids$"), heads=HF.heads[:1]), BERT4KERAS)
    styles: ClassVar = {
        "hf": ConfigStyle(
            "gelu_tanh", KEYS, DEFAULTS, labels={"model_type": "openai-gpt", "architectures": ["OpenAIGPTLMHeadModel"]}
        ),
        "tf1": ConfigStyle("gelu_tanh", BERT_KEYS, DEFAULTS | {"segment_vocab_size": 2}),
    }

    def __init__(self, config: TransformerConfig, application: str = "lm", **options):
        super().__init__(config, application, **options)
        if application == "unilm" and self.config.shared_segment_embeddings:
            raise ConfigError(
                "application='unilm' tells source and target by segments, which are tokens here; expected 'lm', or "
                "shared_segment_embeddings=False"
            )

    @property
    def needs_segments(self) -> bool:
        return self.config.segment_rows > 0 or self.application == "unilm"

    def embed(self, h, inputs, index, cached):
        if self.config.segment_rows:
            segments = self.token_embedding(masks_padding=self.application == "unilm")
            if not self.config.shared_segment_embeddings:
                segments = self.segment_embedding()
            h = self.add("Embedding-Token-Segment", h, segments(inputs["segment_ids"]))
        return super().embed(h, inputs, index, cached)

    def after_blocks(self, h):
        return h

    block = bert.Bert.block  # its norms follow attention and the feed-forward network
