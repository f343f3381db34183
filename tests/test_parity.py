"""Every family against its NumPy oracle, through the shared battery."""

import numpy as np
import pytest
from battery import FamilyBattery
from random_models import random_inputs, random_pairs
from reference import bert, gau, gpt2, llama, modernbert, t5, transformer

from bert4x.errors import ConfigError, InputError, UnknownArchitectureError


class TestBert(FamilyBattery):
    model = "bert"
    oracle = staticmethod(bert.forward)
    outputs = (
        ({}, ("hidden",)),
        ({"with_pool": True}, ("pooled",)),
        ({"with_nsp": "linear", "with_mlm": "linear"}, ("nsp_logits", "mlm_logits")),
    )
    variants = {  # noqa: RUF012
        "factorised embeddings": {"embedding_size": 11},
        "head and key sizes": {"attention_head_size": 6, "attention_key_size": 4},
        "gelu_tanh": {"hidden_act": "gelu_tanh"},
        "relu": {"hidden_act": "relu"},
        "epsilon": {"layer_norm_eps": 1e-2},
        "residual attention": {"residual_attention_scores": True},
        "no segments": {"segment_vocab_size": 0},
        "three segments": {"segment_vocab_size": 3},
        "no pad id": {"pad_token_id": None},
    }
    layer_names = ("Embedding-Token", "Embedding-Norm", "Transformer-2-FeedForward-Norm", "NSP-Proba", "MLM-Activation")


class TestAlbert(TestBert):
    model = "albert"
    layer_names = (
        "Embedding-Mapping",
        "Transformer-MultiHeadSelfAttention",
        "Transformer-FeedForward-Norm",
        "MLM-Norm",
    )


class TestAlbertUnshared(TestBert):
    model = "albert_unshared"
    layer_names = ("Embedding-Mapping", "Transformer-0-MultiHeadSelfAttention", "Transformer-2-FeedForward-Norm")


class TestAlbertZh(TestBert):
    model = "albert_zh"
    variants = {"norms first": {"ln_type": "preln"}, "no segments": {"segment_vocab_size": 0}}  # noqa: RUF012
    layer_names = ("Embedding-Mapping", "Embedding-Token-Segment", "Transformer-FeedForward-Norm", "MLM-Norm")
    test_conditional_layer_norm = test_precision_policy = test_dropout = test_every_weight_learns = None  # as BERT's
    test_lists_and_missing_inputs = test_bad_inputs = test_explicit_padding_mask = test_hierarchical_positions = None


LONG = {  # what a config says of texts longer than those in training
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 3.0}, "log_n": 5},
    "dynamic": {"rope_scaling": {"rope_type": "dynamic", "factor": 3.0}, "log_n": 20, "log_n_beyond": True},
}


class LongTexts:
    @pytest.mark.parametrize("said", LONG)
    def test_long_texts(self, said):
        """Rows of which some have more, some fewer real tokens than were trained."""
        scaling = LONG[said]["rope_scaling"] | {"original_max_position_embeddings": 10}
        config = self.config(rope_theta=50.0, **LONG[said] | {"rope_scaling": scaling})
        self.check(config, inputs=self.inputs(config, length=27))


class TestRoformer(LongTexts, TestBert):
    model = "roformer"
    variants = {name: TestBert.variants[name] for name in ("factorised embeddings", "head and key sizes")}  # noqa: RUF012
    layer_names = ("Embedding-Token-Segment", "Transformer-0-MultiHeadSelfAttention", "MLM-Norm")
    test_hierarchical_positions = None  # it has no table of positions
    test_conditional_layer_norm = test_precision_policy = test_dropout = test_every_weight_learns = None  # as BERT's
    test_lists_and_missing_inputs = test_bad_inputs = test_explicit_padding_mask = None


class TestRoformerV2(TestRoformer):
    model = "roformer_v2"
    outputs = (({}, ("hidden",)), ({"with_mlm": "linear"}, ("mlm_logits",)))
    variants = {"key sizes": {"attention_key_size": 4}, "no segments": {"segment_vocab_size": 0}}  # noqa: RUF012
    layer_names = ("Embedding-Token-Segment", "Transformer-0-FeedForward-Norm", "Output-MLM-Activation")


class TestGau(TestRoformerV2):
    model = "gau"
    oracle = staticmethod(gau.forward)
    layer_names = ("Transformer-0-GatedAttentionUnit", "Transformer-2-GatedAttentionUnit-Norm", "Output-MLM-Activation")


class TestNezha(TestRoformer):
    model = "nezha"
    test_long_texts = None


class TestErnie(TestRoformer):
    model = "ernie"
    test_long_texts = None  # no rotary positions
    variants = {"without tasks": {"use_task_id": False}}  # noqa: RUF012
    layer_names = ("Embedding-Task", "Embedding-Norm", "MLM-Norm")


class TestMegatronBert(TestRoformer):
    model = "megatron_bert"
    test_long_texts = None  # no rotary positions
    variants = {"head and key sizes": TestBert.variants["head and key sizes"]}  # noqa: RUF012
    layer_names = ("Output-Norm", "Transformer-0-MultiHeadSelfAttention-Norm", "MLM-Norm")


class TestXlmRoberta(TestRoformer):
    model = "xlm_roberta"
    test_long_texts = None  # no rotary positions
    outputs = (({"with_pool": True}, ("pooled",)), ({"with_mlm": "linear"}, ("mlm_logits",)), ({}, ("hidden",)))
    applications = ("encoder", "lm")
    variants = {"no segments": {"segment_vocab_size": 0}, "relu": {"hidden_act": "relu"}}  # noqa: RUF012
    layer_names = ("Embedding-Position", "Embedding-Position-Ids", "Transformer-2-FeedForward-Norm")
    test_hierarchical_positions = FamilyBattery.test_hierarchical_positions

    def inputs(self, config, **sizes):
        """All of one segment, and padding amid the first row."""
        inputs = random_inputs(config, **sizes)
        inputs["padding_mask"][0, 4], inputs["token_ids"][0, 4] = False, config["pad_token_id"]
        return inputs | {"segment_ids": np.zeros_like(inputs["segment_ids"])}


class TestDebertaV2(TestRoformer):
    model = "deberta_v2"
    test_long_texts = None  # no rotary positions
    outputs = (({}, ("hidden",)), ({"with_pool": True}, ("pooled",)), ({"with_mlm": "linear"}, ("mlm_logits",)))
    applications = ("encoder",)
    names = ("token_ids",)
    variants = {  # noqa: RUF012
        "positions and segments": {"position_biased_input": True, "segment_vocab_size": 2},
        "no buckets": {"position_buckets": -1, "conv_kernel_size": 0, "attention_key_size": 4},
    }
    layer_names = ("Embedding-Relative", "Embedding-Convolution", "Transformer-1-MultiHeadSelfAttention", "MLM-Norm")
    test_precision_policy = None

    def inputs(self, config, **sizes):
        inputs = random_inputs(config, **sizes)
        return inputs if config["segment_vocab_size"] else {k: v for k, v in inputs.items() if k != "segment_ids"}

    def test_variant(self, variant):
        self.names = ("token_ids", "segment_ids")
        self.check(self.config(**self.variants[variant]))


class TestModernBert(TestDebertaV2):
    model = "modernbert"
    oracle = staticmethod(modernbert.forward)
    outputs = (
        ({}, ("hidden",)),
        ({"with_transform": True}, ("transformed",)),
        ({"with_pool": True, "with_mlm": "linear"}, ("pooled", "mlm_logits")),
    )
    variants = {"first token": {"pooling": "cls"}, "all is global": {"global_every": 1}}  # noqa: RUF012
    layer_names = ("Embedding-Norm", "Transformer-1-MultiHeadSelfAttention-Norm", "Output-Norm", "MLM-Activation")
    test_variant = FamilyBattery.test_variant


class TestElectra(TestRoformer):
    model = "electra"
    test_long_texts = None
    outputs = (({"with_discriminator": "linear", "with_mlm": "linear"}, ("discriminator_logits", "mlm_logits")),)
    layer_names = ("Embedding-Position", "Discriminator-Dense", "Discriminator-Prediction", "MLM-Activation")


class TestGpt2(FamilyBattery):
    model = "gpt2"
    oracle = staticmethod(gpt2.forward)
    outputs = (({}, ("hidden",)), ({"with_mlm": "linear"}, ("lm_logits",)))
    applications = ("lm", "unilm")
    variants = {  # noqa: RUF012
        "head and key sizes": {"attention_head_size": 6, "attention_key_size": 4},
        "gelu_erf": {"hidden_act": "gelu_erf"},
        "relu": {"hidden_act": "relu"},
        "epsilon": {"layer_norm_eps": 1e-2},
        "residual attention": {"residual_attention_scores": True},
    }
    layer_names = ("Embedding-Position", "Transformer-0-MultiHeadSelfAttention-Norm", "Output-Norm", "LM-Activation")


class TestGpt(TestGpt2):
    model = "gpt"
    variants = {"of tokens": {"shared_segment_embeddings": True}, "segments": {"segment_vocab_size": 3}}  # noqa: RUF012
    layer_names = ("Transformer-0-FeedForward-Norm", "LM-Activation")
    test_hierarchical_positions = test_precision_policy = test_dropout = test_explicit_padding_mask = None  # as GPT2's
    test_lists_and_missing_inputs = test_bad_inputs = test_custom_position_ids = test_conditional_layer_norm = None

    def test_variant(self, variant):
        self.check(self.config(**self.variants[variant]), "lm")


class TestGpt2Ml(TestGpt2):
    model = "gpt2_ml"
    variants = {name: TestGpt2.variants[name] for name in ("head and key sizes", "residual attention")}  # noqa: RUF012
    layer_names = ("Embedding-Norm", "Transformer-0-FeedForward-Norm-0", "Transformer-2-FeedForward-Norm-1")
    test_hierarchical_positions = test_precision_policy = test_dropout = test_explicit_padding_mask = None  # as GPT2's
    test_lists_and_missing_inputs = test_bad_inputs = test_custom_position_ids = None


class TestQwen3(LongTexts, FamilyBattery):
    model = "qwen3"
    oracle = staticmethod(llama.forward)
    outputs = (({}, ("hidden",)), ({"with_mlm": "linear"}, ("lm_logits",)))
    applications = ("lm", "unilm")
    variants = {"tied": {"tie_word_embeddings": True}, "epsilon": {"layer_norm_eps": 1e-2}}  # noqa: RUF012
    layer_names = ("Embedding-Token", "Transformer-0-MultiHeadSelfAttention-Norm", "Output-Norm", "LM-Head")
    test_hierarchical_positions = None  # it has no table of positions
    test_conditional_layer_norm = test_dropout = test_explicit_padding_mask = None  # as GPT2's


class TestTransformer(FamilyBattery):
    model = "transformer"
    layers = 3  # of the encoder; the decoder has two
    oracle = staticmethod(transformer.forward)
    outputs = (({}, ("hidden",)), ({"with_mlm": "linear"}, ("lm_logits",)))
    applications = ("seq2seq",)
    application = "seq2seq"
    names = ("token_ids", "target_ids")
    variants = {  # noqa: RUF012
        "head and key sizes": {"attention_head_size": 6, "attention_key_size": 4},
        "gelu_erf": {"hidden_act": "gelu_erf"},
        "epsilon": {"layer_norm_eps": 1e-2},
        "residual attention": {"residual_attention_scores": True},
        "as deep on both sides": {"num_decoder_layers": None},
        "no pad id": {"pad_token_id": None},
    }
    layer_names = (
        "Embedding-Token",
        "Encoder-Transformer-2-FeedForward-Norm",
        "Encoder-Output",
        "Decoder-Transformer-1-MultiHeadCrossAttention",
        "LM-Activation",
    )
    test_custom_position_ids = test_hierarchical_positions = None  # its positions are sinusoids

    def inputs(self, config, **sizes):
        return random_pairs(config, **sizes)

    def real(self, inputs):
        return inputs["target_mask"]

    def test_bad_inputs(self):
        config = self.config()
        model, _ = self.encode(config)
        inputs = random_pairs(config)
        source, target = inputs["token_ids"], inputs["target_ids"]
        for bad, message in (
            ({"token_ids": source}, "'Input-Target' is missing"),
            ({"target_ids": target}, "no token_ids"),
            ({"token_ids": source, "target_ids": target + 97}, "target id .* outside the table of 97"),
            ({"token_ids": source, "target_ids": target[:2]}, r"shape \(2, 9\)"),
            ({"token_ids": source, "target_ids": target[:, :0]}, r"shape \(3, 0\)"),
            ({"token_ids": source, "target_ids": np.ones((3, 30), "int32")}, "30 tokens"),
            ({"token_ids": np.ones((3, 30), "int32"), "target_ids": target}, "30 tokens"),
            ({"token_ids": source, "target_ids": target, "segments": source}, "no input 'segments'"),
        ):
            with pytest.raises(InputError, match=message):
                model(bad)

    def test_what_it_cannot_be(self):
        for changes in ({"embedding_size": 11}, {"hierarchical_position": True}):
            with pytest.raises(ConfigError, match=next(iter(changes))):
                self.encode(self.config(**changes))
        for application in ("lm", "unilm", "encoder"):
            with pytest.raises(UnknownArchitectureError, match="seq2seq"):
                self.encode(self.config(), application=application)


class TestT5(TestTransformer):
    model = "t5"
    oracle = staticmethod(t5.forward)
    variants = {  # noqa: RUF012
        "1.0": {"gated": False, "tied_output": True, "hidden_act": "relu"},
        "T5-PEGASUS": {"scale_output": True, "cross_position_bias": True, "hidden_act": "gelu_erf"},
    }
    layer_names = (
        "Encoder-Embedding-Relative-Position",
        "Encoder-Output-Norm",
        "Decoder-Transformer-1-MultiHeadCrossAttention-Norm",
        "Decoder-Output-LM",
    )
    test_build_transformer_model = test_precision_policy = test_serialization = None  # tests/test_t5.py has these
    test_bad_inputs = test_what_it_cannot_be = test_dropout = test_lists_and_missing_inputs = None
