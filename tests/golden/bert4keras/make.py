"""Makes the files beside it with bert4keras 0.11.5 itself, on tf_keras 2.21: python make.py, where it can be imported.

Of each family: `FAMILY.h5`, weights as `model.save_weights` leaves them; `FAMILY.json`, the config, the inputs and the
outputs of that model, and the names and shapes of its variables in TensorFlow's layout.
"""

import json
from pathlib import Path

import numpy as np
from bert4keras.layers import Add, Dropout, GatedAttentionUnit, LayerNormalization
from bert4keras.models import RoFormerV2, build_transformer_model

HERE = Path(__file__).parent
SIZES = {
    "vocab_size": 31, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20,
    "hidden_act": "gelu", "max_position_embeddings": 16, "hidden_dropout_prob": 0.1, "initializer_range": 0.02,
    "attention_probs_dropout_prob": 0.1,
}  # fmt: skip
FAMILIES = {  # what its config says beside the sizes, and options
    "gpt2_ml": ({"type_vocab_size": 0}, {}),
    "gpt": ({"type_vocab_size": 31, "shared_segment_embeddings": True}, {}),
    "electra": ({"type_vocab_size": 2, "embedding_size": 8}, {"with_discriminator": "linear"}),
    "gau": (
        {"type_vocab_size": 2, "hidden_act": "swish", "num_attention_heads": 1, "attention_key_size": 6},
        {"with_mlm": "linear"},
    ),
    "roformer_v2": ({"type_vocab_size": 2, "hidden_act": "relu"}, {"with_mlm": "linear"}),
}


class GauAlpha(RoFormerV2):
    """GAU-alpha over bert4keras' layer, as its authors publish it."""

    def apply_main_layers(self, inputs, index):
        name = f"Transformer-{index}-GatedAttentionUnit"
        unit = {"units": self.intermediate_size, "key_size": self.attention_key_size, "activation": self.hidden_act}
        unit |= {"use_bias": False, "normalization": "softmax_plus", "arguments": {"p_bias": "rotary"}}
        x = self.apply([inputs, self.compute_position_bias(inputs)], GatedAttentionUnit, name=name, **unit)
        x = self.apply(x, Dropout, rate=self.dropout_rate, name=f"{name}-Dropout")
        x = self.apply([inputs, x], Add, name=f"{name}-Add")
        norm = {"zero_mean": False, "scale": False, "offset": False}
        return self.apply(x, LayerNormalization, name=f"{name}-Norm", **norm)

    def variable_mapping(self):
        word = {"Embedding-Token": ["bert/embeddings/word_embeddings"]}
        mapping = word | {"Embedding-Segment": ["bert/embeddings/token_type_embeddings"]}
        for i in range(self.num_hidden_layers):
            names = ("i_dense/kernel", "q_scaleoffset/gamma", "k_scaleoffset/gamma", "o_dense/kernel")
            names = [f"GAU_alpha/encoder/layer_{i}/gau/{name}" for name in names]
            mapping[f"Transformer-{i}-GatedAttentionUnit"] = names
        return mapping


def make(family):
    more, options = FAMILIES[family]
    (HERE / "config.json").write_text(json.dumps(SIZES | more))
    if family.startswith("gpt"):
        options = options | {"final_activation": "linear"}
    kind = GauAlpha if family == "gau" else family
    builder = build_transformer_model(str(HERE / "config.json"), model=kind, return_keras_model=False, **options)
    (HERE / "config.json").unlink()
    draw = np.random.default_rng(0)
    model = builder.model
    model.set_weights([draw.normal(0, 0.3, w.shape) + (w.name.endswith("gamma:0")) for w in model.weights])
    model.save_weights(HERE / f"{family}.h5")
    mapping, names = builder.variable_mapping(), {}
    for layer in (layer for layer in mapping if layer in builder.layers):
        weights = builder.layers[layer].weights
        names |= {name: list(w.shape) for name, w in zip(mapping[layer], weights, strict=True)}
    ids = draw.integers(1, 31, (2, 9))
    ids[1, 6:] = 0
    segments = (np.arange(9)[None] >= 4) * (ids > 0)
    segments = np.where(ids > 0, segments + 5, 0) if family == "gpt" else segments  # tokens, of which 0 is padding
    inputs = [ids, segments][: len(model.inputs)]
    outputs = model.predict(inputs, verbose=0)
    data = {"config": SIZES | more, "token_ids": ids.tolist(), "segment_ids": segments.tolist(), "names": names}
    data["outputs"] = np.round(outputs.astype("float64"), 7).tolist()
    (HERE / f"{family}.json").write_text(json.dumps(data))


for family in FAMILIES:
    make(family)
