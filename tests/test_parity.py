"""Every family against its NumPy oracle, through the shared battery."""

from battery import FamilyBattery
from reference import bert, gpt2


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
