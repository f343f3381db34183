"""The same fine-tuning by PyTorch and `transformers`: same initial weights, heads too, same batches, same schedule.

A peer takes a task of ours for what is not the model: its examples, its batches, and how answers are decoded and
scored. Model, loss and optimizer are PyTorch's.
"""

import math
import time
from pathlib import Path

import numpy as np

import bert4x
from bert4x.training.batches import Batches
from bert4x.training.loop import Schedule

DECAYED = 0.01
ENCODERS = ("bert.", "model.")


def peer_of(task, folder: Path):
    """The PyTorch model of a task, with the values that the task's has now."""
    import torch
    import transformers
    from torch import nn
    from torch.nn import functional as F

    bert4x.convert(task.save(folder / "bert4x"), folder / "hf", "hf", drop_head=True)  # the head is copied below
    head = {path: torch.tensor(np.asarray(v)) for path, v in task.head.items()}

    def linear(name):
        kernel, bias = head[f"{name}/kernel"], head.get(f"{name}/bias")
        layer = nn.Linear(*kernel.shape, bias=bias is not None)
        layer.weight.data = kernel.T.contiguous()
        if bias is not None:
            layer.bias.data = bias
        return layer

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = transformers.BertModel.from_pretrained(folder / "hf", add_pooling_layer=False)
            self.dropout = nn.Dropout(getattr(task, "dropout", 0.0))

        def hidden(self, ids, segments):
            return self.bert(ids, (ids != task.pad_id).long(), segments).last_hidden_state

    class Classifier(Encoder):
        def __init__(self):
            super().__init__()
            self.scores = linear("Label-Scores")

        def forward(self, ids, segments):
            return self.scores(self.dropout(self.hidden(ids, segments)[:, 0]))

        def loss(self, outputs, labels):
            return F.cross_entropy(outputs, labels)

    class Tagger(Encoder):
        def __init__(self):
            super().__init__()
            self.scores = linear("Entity-Tags")

        def forward(self, ids, segments):
            return self.scores(self.dropout(self.hidden(ids, segments)))

        def loss(self, outputs, tags):
            return F.cross_entropy(outputs.transpose(1, 2), tags, ignore_index=-1)

    class Reader(Encoder):
        def __init__(self):
            super().__init__()
            self.scores = linear("Answer-Scores")

        def forward(self, ids, segments):
            scores = self.scores(self.dropout(self.hidden(ids, segments))).transpose(1, 2)
            return scores.masked_fill((ids == task.pad_id)[:, None], -6e4)

        def loss(self, outputs, places):
            return F.cross_entropy(outputs.transpose(1, 2), places)

    class Extractor(Encoder):
        """Half pointers; what comes before the last norm is caught on its way."""

        def __init__(self):
            super().__init__()
            self.subject, self.object = linear("Triple-Subject"), linear("Triple-Object")
            self.gamma, self.beta = (linear(f"Triple-Object-Norm/{name}_dense") for name in ("gamma", "beta"))
            self.scale = nn.Parameter(head["Triple-Object-Norm/gamma"])
            self.offset = nn.Parameter(head["Triple-Object-Norm/beta"])
            self.bert.encoder.layer[-1].output.LayerNorm.register_forward_pre_hook(self.catch)

        def catch(self, module, inputs):
            self.states = inputs[0]

        def encode(self, ids, segments):
            return self.subject(self.hidden(ids, segments)), self.states

        def objects(self, states, spans):
            rows = torch.arange(len(states))[:, None]
            ends = states[rows, spans.long()].flatten(1)[:, None]
            normed = F.layer_norm(states, states.shape[-1:], eps=task.config.layer_norm_eps)
            normed = normed * (self.scale + self.gamma(ends)) + self.offset + self.beta(ends)
            return self.object(normed).unflatten(-1, (-1, 2))

        def forward(self, ids, segments, spans):
            subject, states = self.encode(ids, segments)
            return subject, self.objects(states, spans)

        def loss(self, outputs, subjects, objects, mask):
            def crossentropy(scores, labels, power):
                p = (torch.sigmoid(scores) ** power).clamp(1e-7, 1 - 1e-7)
                return F.binary_cross_entropy(p, labels.float(), reduction="none").mean(-1)

            each = crossentropy(outputs[0], subjects, 2) + crossentropy(outputs[1], objects, 4).sum(-1)
            return (each * mask).sum() / mask.sum()

    class Writer(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = transformers.BertForMaskedLM.from_pretrained(folder / "hf", attn_implementation="sdpa")

        def forward(self, ids, segments, places):
            rank = segments.cumsum(1)
            mask = (rank[:, None, :] <= rank[:, :, None]) & (ids != task.pad_id)[:, None, :]
            h = self.model.bert(ids, mask[:, None].float().log().clamp(min=-1e9), segments).last_hidden_state
            return self.model.cls(h[torch.arange(len(h))[:, None], places.clamp(min=0).long()])

        def loss(self, outputs, targets):
            return F.cross_entropy(outputs.transpose(1, 2), targets, ignore_index=-1)

    models = {
        "text-classification": Classifier, "token-classification": Tagger, "reading-comprehension": Reader,
        "triple-extraction": Extractor, "seq2seq": Writer,
    }  # fmt: skip
    return models[task.name]()


def decayed(model, head_rate: float = 1.0) -> list[dict]:
    """The parameters of a model in groups: biases and norms do not decay; a head learns `head_rate` times as fast."""
    groups = {}
    for name, parameter in model.named_parameters():
        plain = name.endswith(("bias", "gamma", "beta")) or "LayerNorm" in name
        rate = 1.0 if name.startswith(ENCODERS) else head_rate
        groups.setdefault((0.0 if plain else DECAYED, rate), []).append(parameter)
    return [{"params": found, "weight_decay": decay, "times": rate} for (decay, rate), found in groups.items()]


def train(task, rows, schedule: Schedule, folder: Path, head_learning_rate: float | None = None):
    """Trains a peer, after every epoch of which it is scored by `task.evaluate`; yields (epoch, model, seconds)."""
    import torch

    torch.manual_seed(schedule.seed)
    model = peer_of(task, folder)
    rate = schedule.learning_rate
    head_rate = (head_learning_rate or max(rate, task.least_head_rate)) / rate  # as ours
    optimizer = torch.optim.AdamW(decayed(model, head_rate), lr=rate, eps=1e-7)
    examples = task.prepare(rows)
    batches = Batches([example.length for example in examples], schedule.batch_size, schedule.seed)
    updates, update, seconds = schedule.epochs * len(batches), 0, 0.0
    for epoch in range(schedule.epochs):
        model.train()
        began = time.perf_counter()
        for number, (chosen, length) in enumerate(batches.epoch(epoch)):
            update += 1
            inputs, targets = task.batch([examples[i] for i in chosen], length, batches.draw(epoch, number))
            inputs, targets = ([torch.from_numpy(x).long() for x in arrays] for arrays in (inputs, targets))
            for group in optimizer.param_groups:
                group["lr"] = group["times"] * schedule.rate(update, updates)
            loss = model.loss(model(*inputs), *targets)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if not math.isfinite(loss.item()):
                raise RuntimeError(f"update {update}: the loss is {loss.item()}")
        seconds += time.perf_counter() - began
        yield epoch, model.eval(), seconds


def answer_with(task, model) -> None:
    """Lets a task answer by a peer."""
    import torch

    def predict(ours, arrays):
        tensors = [torch.from_numpy(np.asarray(x)) for x in arrays]
        tensors = [x if x.is_floating_point() else x.long() for x in tensors]
        parts = {id(getattr(task, "encoder", None)): "encode", id(getattr(task, "objects", None)): "objects"}
        with torch.inference_mode():
            outputs = getattr(model, parts.get(id(ours), "forward"))(*tensors)
        return tuple(x.numpy() for x in outputs) if isinstance(outputs, tuple) else outputs.numpy()

    task.predict = predict
