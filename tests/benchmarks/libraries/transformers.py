"""transformers on PyTorch."""

import numpy as np
import torch
from torch import nn
from transformers import BertModel

from tests.benchmarks.libraries import CLIP, DECAY, EPSILON, LABELS, RATE, Setup, head


class Classifier(nn.Module):
    """BERT, and a dense layer on its first hidden state."""

    def __init__(self, setup: Setup):
        super().__init__()
        rates = {"hidden_dropout_prob": setup.dropout, "attention_probs_dropout_prob": setup.dropout}
        self.bert = load(setup, torch.float32, **rates)
        self.dropout = nn.Dropout(setup.dropout)
        self.scores = nn.Linear(self.bert.config.hidden_size, LABELS)
        kernel, bias = head(self.bert.config.hidden_size)
        self.scores.weight.data, self.scores.bias.data = torch.tensor(kernel.T.copy()), torch.tensor(bias)

    def forward(self, ids, mask, segments):
        hidden = self.bert(ids, mask, segments).last_hidden_state
        return self.scores(self.dropout(hidden[:, 0].float()))


def load(setup: Setup, dtype: torch.dtype, **options) -> BertModel:
    return BertModel.from_pretrained(setup.folder, dtype=dtype, add_pooling_layer=False, **options)


def place(setup: Setup) -> str:
    return "cuda" if setup.device == "gpu" else "cpu"


def tensors(setup: Setup, ids: np.ndarray, segments: np.ndarray):
    """Inputs as a tokenizer of this library gives them: with a mask, though nothing is padded."""
    return [torch.from_numpy(x).long().to(place(setup)) for x in (ids, ids != 0, segments)]


def encoder(setup: Setup):
    model = load(setup, getattr(torch, setup.dtype)).eval().to(place(setup))
    run = torch.compile(model, dynamic=False) if setup.form == "compiled" else model

    def encode(ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return run(*tensors(setup, ids, segments)).last_hidden_state.float().cpu().numpy()

    return encode


def classifier(setup: Setup):
    torch.manual_seed(0)
    model = Classifier(setup).to(place(setup))
    parts = [p for p in model.parameters() if p.ndim > 1], [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": part, "weight_decay": decay} for part, decay in zip(parts, (DECAY, 0.0), strict=True)]
    optimizer = torch.optim.AdamW(groups, lr=RATE, eps=EPSILON)
    run = torch.compile(model) if setup.form == "compiled" else model
    mixed = torch.autocast(place(setup), torch.bfloat16, enabled=setup.dtype == "mixed_bfloat16")

    def score(ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
        model.eval()
        with torch.inference_mode(), mixed:
            return model(*tensors(setup, ids, segments)).float().cpu().numpy()

    def learn(ids: np.ndarray, segments: np.ndarray, labels: np.ndarray) -> float:
        model.train()
        with mixed:
            scores = run(*tensors(setup, ids, segments))
            loss = nn.functional.cross_entropy(scores, torch.from_numpy(labels).long().to(place(setup)))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    return score, learn
