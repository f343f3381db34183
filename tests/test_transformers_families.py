"""Families against those of transformers, as it saves them: outputs, heads, and the same bits written back."""

import numpy as np
import pytest
from battery import array, close
from make_checkpoints import assert_same_bits

import bert4x
from bert4x.checkpoints.opening import open_checkpoint

torch = pytest.importorskip("torch", reason="compares with transformers on PyTorch")
transformers = pytest.importorskip("transformers", reason="compares with transformers")

SIZES = {
    "vocab_size": 97, "hidden_size": 40, "num_hidden_layers": 4, "num_attention_heads": 5, "intermediate_size": 53,
    "max_position_embeddings": 31,
}  # fmt: skip
XLM_R = {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}
MODERN = {"pad_token_id": 0, "local_attention": 8, "type_vocab_size": 1, "classifier_pooling": "mean"}
TASKS = {"use_task_id": True, "task_type_vocab_size": 5, "hidden_act": "relu"}
DEBERTA = {
    "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": ["c2p", "p2c"], "position_biased_input": False, "conv_kernel_size": 3, "conv_act": "gelu",
    "layer_norm_eps": 1e-7, "type_vocab_size": 0,
}  # fmt: skip
# our family, the class in transformers, fields of its config
CASES = [
    ("xlm_roberta", "XLMRobertaForMaskedLM", XLM_R),
    ("fairseq_roberta", "RobertaForMaskedLM", XLM_R | {"hidden_act": "relu"}),
    ("xlm_roberta", "XLMRobertaForSequenceClassification", XLM_R | {"num_labels": 3}),
    ("fairseq_roberta", "RobertaModel", XLM_R),
    ("ernie", "ErnieForMaskedLM", TASKS | {"type_vocab_size": 4, "layer_norm_eps": 1e-5}),
    ("ernie", "ErnieForSequenceClassification", {"num_labels": 3}),
    ("megatron_bert", "MegatronBertForMaskedLM", {}),
    ("megatron_bert", "MegatronBertForSequenceClassification", {"num_labels": 3}),
    ("modernbert", "ModernBertForMaskedLM", MODERN | {"global_attn_every_n_layers": 2}),
    ("modernbert", "ModernBertForSequenceClassification", MODERN | {"num_labels": 3, "problem_type": "regression"}),
    ("modernbert", "ModernBertForTokenClassification", MODERN | {"num_labels": 3}),
    ("modernbert", "ModernBertForQuestionAnswering", MODERN),
    ("deberta_v2", "DebertaV2ForMaskedLM", DEBERTA),
    ("deberta_v2", "DebertaV2ForMaskedLM", DEBERTA | {"legacy": False, "conv_kernel_size": 0, "position_buckets": -1}),
    (
        "deberta_v2",
        "DebertaV2ForSequenceClassification",
        DEBERTA | {"num_labels": 3, "position_biased_input": True, "position_buckets": 64},
    ),
    ("deberta_v2", "DebertaV2ForQuestionAnswering", DEBERTA),
]


def published(name: str, fields: dict, folder):
    """A random model of a class, and how transformers saves it."""
    cls = getattr(transformers, name)
    torch.manual_seed(0)
    model = cls(cls.config_class(**SIZES | fields, attn_implementation="eager")).eval()
    for path, parameter in model.named_parameters():
        parameter.data.normal_(0, 0.2)
        if path.rpartition(".")[0].endswith(("Norm", "norm", "ln")) and path.endswith("weight"):
            parameter.data += 1
    model.save_pretrained(folder)
    return model


def inputs_of(pad: int, types: int):
    """Ids of three rows, two of them padded; what transformers takes of the same."""
    draw, real = np.random.default_rng(0), np.arange(13) < np.array([[13], [9], [7]])
    ids = np.where(real, draw.integers(4, SIZES["vocab_size"], real.shape), pad)
    segments = np.where(real & (np.arange(13) > 4), types - 1, 0)
    ours = {"token_ids": ids, "padding_mask": real} | ({"segment_ids": segments} if types > 1 else {})
    theirs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(real.astype(int))}
    return ours, theirs | ({"token_type_ids": torch.tensor(segments)} if types > 1 else {})


def contents(folder) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint by the names in its file."""
    return {t.name: np.array(t.read()) for t in open_checkpoint(folder).tensors.values()}


@pytest.mark.parametrize(("family", "name", "fields"), CASES, ids=[name for _, name, _ in CASES])
def test_outputs_and_bits(family, name, fields, tmp_path):
    golden = published(name, fields, tmp_path / "theirs")
    of_tokens = name.endswith(("TokenClassification", "QuestionAnswering"))
    heads = {"with_mlm": True} if name.endswith("LM") else {} if of_tokens else {"with_pool": True}
    heads |= {"with_transform": True} if of_tokens and family == "modernbert" else {}
    ours, theirs = inputs_of(fields.get("pad_token_id", 0), fields.get("type_vocab_size", 2))
    with torch.no_grad():
        expected = golden(**theirs)
    model = bert4x.load(tmp_path / "theirs", "encoder", **heads)
    assert model.config.model == family
    output, real = array(model(ours)), ours["padding_mask"]
    if name.endswith("Model"):
        close(output, expected.pooler_output.numpy())
    elif name.endswith("LM"):
        close(output[real], expected.logits.numpy()[real])
    else:
        kernel, bias = (tensor.read() for tensor in model.load_report.head.tensors.values())
        answers = name.endswith("QuestionAnswering")
        logits = torch.stack([expected.start_logits, expected.end_logits], -1) if answers else expected.logits
        at = real if of_tokens else ...
        close(output[at] @ kernel + bias, logits.numpy()[at])
    bert4x.convert(tmp_path / "theirs", tmp_path / "ours", "bert4x")
    bert4x.convert(tmp_path / "ours", tmp_path / "back", "hf")
    before, after = (contents(tmp_path / folder) for folder in ("theirs", "back"))
    if name.endswith("Model"):  # saved without the word before all names, which we always write
        after = {path.partition(".")[2]: values for path, values in after.items()}
    assert_same_bits(after, before)
    again = getattr(transformers, name).from_pretrained(tmp_path / "back", attn_implementation="eager").eval()
    with torch.no_grad():
        assert torch.equal(again(**theirs)[0], expected[0])
