"""Tiny random models of `transformers`: expected outputs wherever it and PyTorch are installed."""

import re

import numpy as np
import pytest

ACTIVATIONS = {"gelu_erf": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
NAMES = {"token_ids": "input_ids", "segment_ids": "token_type_ids", "padding_mask": "attention_mask"}


def random_model(config, seed=0):
    """A pretraining model of our config's sizes; all its weights are drawn, biases and gammas too."""
    torch = pytest.importorskip("torch", reason="compares with transformers on PyTorch")
    pytest.importorskip("transformers", reason="compares with transformers")
    torch.manual_seed(seed)
    model = {"bert": _bert, "albert": _albert, "gpt2": _gpt2}[config["model"]](config).eval()
    for name, parameter in model.named_parameters():
        parameter.data.normal_(0, 0.3)
        if re.search(r"(orm|\.ln_\w+)\.weight$", name):
            parameter.data += 1
    return model


def tensors(model):
    """Name -> float32 array."""
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def outputs(model, inputs):
    """What the model says, under the oracles' names."""
    import torch

    with torch.no_grad():
        names = {NAMES[name]: torch.tensor(values.astype(np.int64)) for name, values in inputs.items()}
        if model.config.model_type == "gpt2":
            del names["token_type_ids"]
            whole = model(**names, output_hidden_states=True)
            found = {"lm_logits": whole.logits}
        else:
            whole = model(**names, output_hidden_states=True)
            pooled = model.base_model(**names).pooler_output
            nsp = whole.sop_logits if model.config.model_type == "albert" else whole.seq_relationship_logits
            found = {"pooled": pooled, "nsp_logits": nsp, "mlm_logits": whole.prediction_logits}
        found["hidden"] = whole.hidden_states[-1]
    return {name: tensor.numpy() for name, tensor in found.items()}


def _fields(config):
    return {
        "hidden_size": config["hidden_size"],
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": config["num_attention_heads"],
        "intermediate_size": config["intermediate_size"],
        "vocab_size": config["vocab_size"],
        "max_position_embeddings": config["max_position"],
        "layer_norm_eps": config["layer_norm_eps"],
        "hidden_act": ACTIVATIONS[config["hidden_act"]],
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "attn_implementation": "eager",
    }


def _bert(config):
    from transformers import BertConfig, BertForPreTraining

    return BertForPreTraining(BertConfig(**_fields(config)))


def _albert(config):
    from transformers import AlbertConfig, AlbertForPreTraining

    groups = {"num_hidden_groups": 1, "inner_group_num": 1, "embedding_size": config["embedding_size"]}
    return AlbertForPreTraining(AlbertConfig(**_fields(config), **groups))


def _gpt2(config):
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config["vocab_size"],
            n_positions=config["max_position"],
            n_embd=config["hidden_size"],
            n_layer=config["num_hidden_layers"],
            n_head=config["num_attention_heads"],
            n_inner=config["intermediate_size"],
            activation_function=ACTIVATIONS[config["hidden_act"]],
            layer_norm_epsilon=config["layer_norm_eps"],
            attn_implementation="eager",
        )
    )
