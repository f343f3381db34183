"""A smaller model that learns a task from a larger one."""

import dataclasses
import re
from collections.abc import Sequence
from itertools import pairwise

import keras
from keras import ops

from bert4x.errors import ConfigError
from bert4x.tasks.task import Task


def student_of(teacher: Task, layers: int) -> Task:
    """The same task over a model of fewer blocks, which begin as some of the teacher's, evenly chosen, the last among
    them; embeddings and head begin as the teacher's, too.

    Raises: ConfigError for a number of layers that the teacher has not; for an export; and for families that compute
    more than one block after another (`TransformerBuilder.in_parts`).
    """
    builder = None if teacher.exported else teacher.backbone.builder
    if builder is None or not builder.in_parts():
        kind = "an export" if builder is None else f"a {teacher.config.model}"
        raise ConfigError(f"{kind} has no student here; expected a model whose blocks stand alone, such as a BERT's")
    chosen = [end - 1 for end in ends_of_groups(teacher, layers)]
    options = {name: getattr(builder, name) for name in builder.options if name != "layers"}
    config = dataclasses.replace(builder.config, num_hidden_layers=layers)
    model = type(builder)(config, builder.application, **options).build().model
    model.tokenizer = teacher.tokenizer
    student = type(teacher)(model, maxlen=teacher.maxlen, **{name: getattr(teacher, name) for name in teacher.settings})
    known = {variable.path: variable for variable in teacher.model.variables}
    for variable in student.model.variables:
        if "seed_generator" in variable.path:
            continue
        source = re.sub(r"Transformer-(\d+)", lambda match: f"Transformer-{chosen[int(match[1])]}", variable.path)
        variable.assign(known[source].value)
    return student


def ends_of_groups(teacher: Task, layers: int) -> list[int]:
    """The teacher's blocks in as many groups as the student has layers, as even as can be: where each ends.

    Raises: ConfigError for a number of layers that the teacher has not.
    """
    most = teacher.config.num_hidden_layers
    if not 1 <= layers < most:
        raise ConfigError(f"{layers} layers; expected 1 to {most - 1}, since the teacher has {most}")
    return [round((i + 1) * most / layers) for i in range(layers)]


class FromStates:
    """A task as one that learns from what a teacher's layers and its head give (Sun et al. 2019, arXiv 1908.09355;
    Jiao et al. 2020, arXiv 1909.10351).

    The loss is (1 - `share`) of the task's own, `share` of the divergence of the answers from the teacher's, and
    `states` times the distance of the hidden states: after the embeddings and after every block, the squared difference
    from the state after the last block of the teacher's group, as a share of that state's square, in the mean over the
    tokens that are no padding.

    Args:
        task: the student, of the same vocabulary and width.
        teacher: which is not trained by this.
    Raises: ConfigError when the widths differ.
    """

    def __init__(self, task: Task, teacher: Task, share: float = 0.5, states: float = 1.0):
        if task.config.hidden_size != teacher.config.hidden_size:
            raise ConfigError(
                f"hidden_size {task.config.hidden_size} of the student, {teacher.config.hidden_size} of the teacher; "
                "states are compared at one size: make the student by student_of"
            )
        self.task, self.share, self.states, self.batch = task, share, states, task.batch
        ends = [0, *ends_of_groups(teacher, task.config.num_hidden_layers)]
        models = []
        for each, at in ((task, range(len(ends))), (teacher, ends)):
            states, answers = symbolic_states(each)
            models.append(Part(each.backbone.inputs, [answers, [states[i] for i in at]]))
        self.model = SideBySide(*models, task.known_pad_id)

    def loss(self, outputs, targets):
        """The task's own loss, the divergence of answers and the distance of states, weighted."""
        answers, taught, distances = outputs
        own = self.task.loss(answers, targets)
        return (
            (1 - self.share) * own
            + self.share * self.task.divergence(taught, answers)
            + self.states * ops.mean(distances)
        )


class SideBySide(keras.Model):
    """The answers of a student and of its teacher, and how far apart their states are.

    Shape: -> answers, answers, (B,)
    """

    def __init__(self, student: keras.Model, teacher: keras.Model, pad_id: int | None, **kwargs):
        super().__init__(**kwargs)
        self.student, self.teacher, self.pad_id = student, teacher, pad_id
        teacher.trainable = False

    def call(self, inputs, training=None):
        answers, ours = self.student(inputs, training=training)
        taught, theirs = self.teacher(inputs, training=False)
        real = ops.ones_like(inputs[0]) if self.pad_id is None else inputs[0] != self.pad_id
        real = ops.cast(real, "float32")
        distances = [share_of_square(mine, aim) for mine, aim in zip(ours, theirs, strict=True)]
        distance = sum(distances) / len(distances)
        return answers, taught, ops.sum(real * distance, axis=1) / ops.maximum(ops.sum(real, axis=1), 1)


def share_of_square(state, aim):
    """The squared difference of vectors, as a share of the second's square.

    Shape: (B, T, D), (B, T, D) -> (B, T) float32
    """
    state, aim = (ops.cast(x, "float32") for x in (state, aim))
    square = ops.sum(ops.square(aim), axis=-1)
    return ops.sum(ops.square(state - aim), axis=-1) / ops.maximum(square, 1e-6)


class InPlace:
    """A task as one that learns in its teacher's place (BERT-of-Theseus: Xu et al. 2020, arXiv 2002.02925).

    In training each block of the student replaces its group of the teacher's blocks with a probability, drawn anew for
    every batch; the teacher's blocks are not trained, and there is no loss but the task's. The probability rises evenly
    from `start` to 1 over the first `share` of the updates; from there on the student is trained alone.

    Args:
        updates: of the whole training.
    Raises: ConfigError for a probability that is none.
    """

    def __init__(self, task: Task, teacher: Task, updates: int, start: float = 0.5, share: float = 0.6):
        if not 0 < start <= 1:
            raise ConfigError(
                f"start = {start}; expected the probability, above 0, with which blocks are replaced first"
            )
        self.batch, self.loss = task.batch, task.loss
        ends = [0, *ends_of_groups(teacher, task.config.num_hidden_layers)]
        (states, answers), inputs = symbolic_states(task), task.backbone.inputs
        first, last = Part(inputs, states[0]), Part([*inputs, states[-1]], answers)
        ours, (taught, _) = between(inputs, states), symbolic_states(teacher)
        theirs = between(teacher.backbone.inputs, [taught[end] for end in ends])
        self.model = InTurns(first, ours, theirs, last, start, (1 - start) / max(1.0, share * updates))


class InTurns(keras.Model):
    """A model in which some of the parts are another's, drawn for every batch of training.

    Args:
        first: from the inputs to the first state; `ours` and `theirs` from inputs and state to the next state; `last`
            from inputs and state to the answers.
    """

    def __init__(self, first, ours: Sequence, theirs: Sequence, last, start: float, rise: float, **kwargs):
        super().__init__(**kwargs)
        self.first, self.ours, self.theirs, self.last, self.start, self.rise = first, ours, theirs, last, start, rise
        for part in theirs:
            part.trainable = False
        self.seeds = keras.random.SeedGenerator()
        self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False, name="batches")

    def call(self, inputs, training=None):
        h = self.first(inputs, training=training)
        if training:
            drawn = keras.random.uniform((len(self.ours),), seed=self.seeds) < self.start + self.rise * self.seen
            self.seen.assign_add(1.0)
        for i, (own, other) in enumerate(zip(self.ours, self.theirs, strict=True)):
            replacing = own([*inputs, h], training=training)
            h = ops.where(drawn[i], replacing, other([*inputs, h], training=False)) if training else replacing
        return self.last([*inputs, h], training=training)


class Part(keras.Model):
    """A part of a model. Masks are made of token ids within."""

    def __init__(self, inputs, outputs, **kwargs):
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.supports_masking = True

    def compute_mask(self, inputs, mask=None):
        return None


def between(inputs: list, states: list) -> list[Part]:
    """The parts of a model from each of some states to the next."""
    return [Part([*inputs, state], following) for state, following in pairwise(states)]


def symbolic_states(task: Task) -> tuple[list, object]:
    """What the embeddings and every block of a task's model give, and its answers, for its symbolic inputs."""
    builder = task.backbone.builder
    h, context = builder.begin(dict(zip(builder.keys, builder.model_inputs, strict=True)), None, 0)
    states = [h]
    for i in range(task.config.num_hidden_layers):
        states.append(builder.block(builder.block_name(i), states[-1], context))
    head = Part([*task.backbone.inputs, task.backbone.output], task.model.output)
    return states, head([*builder.model_inputs, context.result(builder.heads(states[-1]))])
