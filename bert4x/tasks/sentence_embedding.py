"""A vector for a text: pooled hidden states, as sentence-transformers has them; to compare texts, and to search."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bert4x import layers as L
from bert4x.checkpoints import sentence_vectors
from bert4x.checkpoints.heads import HeldHead
from bert4x.checkpoints.tables import writer
from bert4x.checkpoints.task_file import FILE
from bert4x.errors import ConfigError, DataError, UnknownOptionError, nearest
from bert4x.hub.names import local
from bert4x.metrics.vectors import ranks_of_right, scores_of_ranks, sts
from bert4x.tasks import compared, static_vectors
from bert4x.tasks import vectors as v
from bert4x.tasks.given import is_number
from bert4x.tasks.heads import assign_head
from bert4x.tasks.text_encoder import TextEncoder
from bert4x.training import contrastive
from bert4x.training.report import watched


class SentenceEmbedding(TextEncoder):
    """Pooled hidden states, then dense layers and normalisation, if there are any.

    Rows to train on are of one of these kinds; what they are says which loss is used (`bert4x.training.contrastive`):
    (text, text, grade) CoSENT, where a higher grade means nearer, and only their order counts; (text, text that answers
    it) or (text, right, wrong, wrong ...) InfoNCE within the batch; (text,) SimCSE: the same text twice, under two
    dropouts (Gao et al. 2021, arXiv 2104.08821); (text, vector) the distance from a teacher's vector.

    Args:
        pooling: of "cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean" and "lasttoken"; several are joined.
        steps: what follows: {"kind": "dense", "units": N, "bias": bool, "activation": name}, {"kind": "normalize"} or
            {"kind": "truncate", "units": N}, which leaves the first N numbers.
        include_prompt: whether the tokens of a prompt are pooled.
        prompts: names -> what is put before a text. `default_prompt` is the name of that which is put where none is
            asked for.
        similarity_name: "cosine", "dot", "euclidean" or "manhattan": what vectors are compared by.
        dimensions: sizes of beginnings that are trained to be vectors of their own (Matryoshka).
        scale: of cosines, in the losses.
    Raises: ConfigError for a model that gives no hidden states; UnknownOptionError.
    """

    name = "sentence-embedding"
    best = "spearman"
    settings = (
        *("pooling", "steps", "include_prompt", "prompts", "default_prompt", "similarity_name"),
        *("lower_case", "dimensions", "scale"),
    )

    def __init__(
        self,
        backbone,
        pooling: str | Sequence[str] = "mean",
        steps: Sequence[dict] = (),
        include_prompt: bool = True,
        prompts: dict[str, str] | None = None,
        default_prompt: str = "",
        similarity_name: str = "cosine",
        lower_case: bool = False,
        dimensions: Sequence[int] = (),
        scale: float = contrastive.SCALE,
        maxlen: int | None = None,
    ):
        if similarity_name not in sentence_vectors.SIMILARITIES:
            known = nearest(str(similarity_name), sentence_vectors.SIMILARITIES)
            raise UnknownOptionError(f"no similarity {similarity_name!r}; {known}")
        check_steps(steps, prompts, dimensions)
        if not is_number(scale) or not 0 < scale < float("inf"):
            raise ConfigError(f"scale = {scale!r:.60}; expected a number above 0")
        prompts = dict(prompts or {})
        if default_prompt and default_prompt not in prompts:
            raise ConfigError(f"default_prompt = {default_prompt!r}, which is none of the prompts {sorted(prompts)}")
        self.objective: str | None = None  # what the rows of `prepare` are for
        self.told: set[str] = set()  # what was said already
        maxlen = sentence_vectors.LONGEST if maxlen is None else maxlen
        maxlen = min(maxlen, backbone.config.max_position) if isinstance(maxlen, int | np.integer) else maxlen
        super().__init__(
            backbone, maxlen, pooling=sentence_vectors.checked_pooling(pooling),
            steps=[dict(step) for step in steps], include_prompt=include_prompt, prompts=prompts,
            default_prompt=default_prompt, similarity_name=similarity_name, lower_case=lower_case,
            dimensions=sorted(dimensions), scale=scale,
        )  # fmt: skip
        wrong = [size for size in self.dimensions if type(size) is not int or not 0 < size <= self.size]
        if wrong:
            raise ConfigError(f"dimensions {wrong}; the vectors of this model have {self.size} numbers")

    def build(self):
        if len(self.backbone.output.shape) != 3:
            raise ConfigError("this model gives no hidden states (B, T, D); load it as an encoder, without heads")
        hidden = self.backbone.output
        counts = L.Input((None,), dtype="int32", name="Input-Pooling-Mask")
        x = L.Pooling(self.pooling, name="Vector-Pooling", dtype="float32")([hidden, counts])
        number = 0
        for step in self.steps:
            if step["kind"] == "normalize":
                x = L.UnitNormalization(name=f"Vector-Normalize-{number}", dtype="float32")(x)
            elif step["kind"] == "truncate":
                x = x[:, : step["units"]]
            else:
                x = L.Dense(
                    step["units"], L.activation(step["activation"]), use_bias=step["bias"],
                    kernel_initializer=L.initializer(0.02), name=f"Vector-Dense-{number}", dtype="float32",
                )(x)  # fmt: skip
                number += 1
        return L.Model([*self.backbone.inputs, counts], x)

    def similarity(self, first, second, **options) -> np.ndarray:
        """How similar texts, or vectors, are to each other. Shape: N, M -> (N, M)"""
        return v.similarity(self.vectors(first, **options), self.vectors(second, **options), self.similarity_name)

    def search(self, query, corpus, top_k: int = 10, *, query_prompt: str | None = None, **options):
        """The texts of a corpus that are nearest to a query, the nearest first; of several queries, a list of such.

        Args:
            query, corpus: texts, or vectors; for a corpus that is searched more than once, keep its vectors.
            query_prompt: the name of the prompt of queries; by default "query", if the model has it.
        Returns: a list of `bert4x.tasks.vectors.Found`, (index, score).
        """
        if query_prompt is None and "query" in self.prompts:
            query_prompt = "query"
        one = isinstance(query, str)
        queries = self([query] if one else query, query_prompt) if one or v.is_texts(query) else query
        found = v.search(queries, self.vectors(corpus, **options), top_k, self.similarity_name)
        return found[0] if one else found

    def vectors(self, values, **options) -> np.ndarray:
        """The vectors of texts; vectors as they are. Shape: -> (N, D)"""
        if isinstance(values, str):
            values = [values]
        return self(list(values), **options) if v.is_texts(values) else v.as_vectors(values)

    def whitened(self, texts: Sequence[str], dimensions: int | None = None) -> "SentenceEmbedding":
        """The same model with a dense layer more, after which the vectors of these texts are white noise
        (`bert4x.tasks.vectors.whitening`): for encoders that were never trained for sentence vectors. It shares the
        weights of this one.
        """
        kernel, bias = v.whitening(v.as_vectors(self(texts, "")), dimensions)
        step = {"kind": "dense", "units": kernel.shape[1], "bias": True, "activation": "linear"}
        settings = {name: getattr(self, name) for name in ("maxlen", *self.settings)}
        white = type(self)(self.backbone, **settings | {"steps": [*self.steps, step], "dimensions": []})
        for path, variable in white.head.items():
            old = self.head.get(path)
            variable.assign(old if old is not None else kernel if path.endswith("kernel") else bias)
        return white

    def static(self, texts: Sequence[str], dimensions: int | None = None) -> "SentenceEmbedding":
        """A model of single tokens: a text's vector is the sum of vectors of its tokens, whatever their order, rare
        ones with more weight. For encoders that were never trained for sentence vectors: what each token is comes from
        their table; see `bert4x.tasks.static_vectors`.

        It is a BERT whose single block adds nothing, so that all that reads a BERT reads it; trained further, the
        block learns.

        Args:
            texts: sentences, many more than a vector has numbers, to count tokens in and to whiten by.
            dimensions: of the vectors; by default nearly those of the table of tokens.
        Raises: ConfigError for a model without such a table; InputError for too few texts.
        """
        return static_vectors.static(self, texts, dimensions)

    # training

    def prepare(self, rows):
        rows = compared.checked(rows)
        self.objective = compared.kind_of(rows[0], 0)
        texts = compared.texts_of(rows[0])
        self.columns = 2 if self.objective == "single texts" else texts
        encoded = self.encoded([text for row in rows for text in row[:texts]])
        return [
            compared.example(row, self.objective, encoded[number * texts : (number + 1) * texts])
            for number, row in enumerate(rows)
        ]

    def batch(self, examples, length, draw):
        rows = [ids for column in zip(*(example.rows for example in examples), strict=True) for ids in column]
        return self.arrays(rows, length), (compared.targets(examples, self.objective),)

    def loss(self, outputs, targets):
        loss = functools.partial(contrastive.LOSSES[self.objective], targets=targets[0], scale=self.scale)
        return contrastive.matryoshka(loss, self.dimensions)(outputs)

    def join(self, outputs, targets):
        """Batches as one: their rows stand text by text, first texts first. See `bert4x.training.trainer.Trainer`."""
        return compared.joined(outputs, self.columns), (L.ops.concatenate([one for (one,) in targets]),)

    @watched
    def evaluate(self, rows, batch_size: int = 32):
        """Of rows with grades, the correlation of similarity and grade, by Spearman and Pearson; of questions with
        their answers, `metrics.vectors.scores_of_ranks` among the answers to all questions.
        """
        rows = scorable(rows)
        if not rows:
            raise DataError("single texts cannot be scored on; expected (text, text, grade) or (text, answer)")
        if compared.kind_of(rows[0], 0) == "answers":
            return scores_of_ranks(self.ranks(rows))
        if len(rows) < 2:
            raise DataError("one row to score on; a correlation needs two or more: give more rows, or --valid a file")
        first, second = (self([row[i] for row in rows], "") for i in range(2))
        return sts(v.paired(first, second, self.similarity_name), [row[2] for row in rows])

    def ranks(self, rows) -> list[np.ndarray]:
        """The ranks of all right answers of each question, among the answers to all questions but its own text.

        Shape: of each question (right answers,)
        """
        right = compared.right_answers(rows)
        texts = list(dict.fromkeys(answer for answers in right.values() for answer in answers))
        places, questions, found = {text: i for i, text in enumerate(texts)}, list(right), []
        asked, vectors = self(questions, ""), self(texts, "")
        step = max(1, v.BLOCK // len(texts))
        for start in range(0, len(questions), step):
            scores = v.similarity(asked[start : start + step], vectors, self.similarity_name)
            is_right = np.zeros(scores.shape, bool)
            for row, question in enumerate(questions[start : start + step]):
                if question in places and question not in right[question]:
                    scores[row, places[question]] = -np.inf
                is_right[row, [places[answer] for answer in right[question]]] = True
            found += ranks_of_right(scores, is_right)
        return found

    def best_of(self, rows):
        rows = scorable(rows)
        return "mrr" if rows and compared.kind_of(rows[0], 0) == "answers" else "spearman"

    # checkpoints

    def save(self, folder: str | os.PathLike, format: str | None = None, *, drop_head: bool = False, **options) -> Path:
        """Writes a folder of sentence-transformers, format "hf", which that library and `bert4x.embedder` open; or, in
        the format "bert4x", a run of ours, as by default of a family that has no layout there.
        """
        if format is None:
            format = "hf" if any(table.format == "hf" for table in writer(self.config.model).tables) else "bert4x"
        if format != "hf" or drop_head:
            return super().save(folder, format, drop_head=drop_head, **options)
        from bert4x.checkpoints.convert import save

        head = self.held_head()
        write = functools.partial(
            sentence_vectors.write_settings, settings=head.settings, tensors=head.tensors, size=self.config.hidden_size
        )
        return save(self.backbone, folder, format, beside=write, **options)

    def restore(self, folder):
        self.backbone.builder.load_weights_from_checkpoint(folder)
        if sentence_vectors.are_sentence_vectors(Path(folder)):
            assign_head(self.head, head_of(Path(folder)), folder)
        else:
            super().restore(folder)

    @classmethod
    def load(cls, folder: str | os.PathLike, **options):
        """A folder of sentence-transformers, or of a run of ours. See `Task.load`."""
        from bert4x.models.build import load

        folder = Path(local(folder)).expanduser()
        if (folder / FILE).is_file() or not sentence_vectors.are_sentence_vectors(folder):
            return super().load(folder, **options)
        settings = sentence_vectors.read_settings(folder)
        settings |= {name: options.pop(name) for name in ("maxlen", *cls.settings) if name in options}
        task = cls(load(folder, application=cls.application, **options), **settings)
        assign_head(task.head, head_of(folder), folder)
        return task


def check_steps(steps, prompts, dimensions) -> None:
    """Raises: ConfigError for settings that are not of their kind."""
    prompts = {} if prompts is None else prompts
    if not isinstance(prompts, dict) or not all(isinstance(one, str) for pair in prompts.items() for one in pair):
        raise ConfigError(f"prompts = {prompts!r:.60}; expected a dict, of names and what is put before a text")
    if isinstance(steps, str) or not isinstance(steps, Sequence):
        raise ConfigError(f"steps = {steps!r:.60}; expected a list of what follows pooling")
    if isinstance(dimensions, str | bytes) or not isinstance(dimensions, Sequence):
        raise ConfigError(f"dimensions = {dimensions!r:.60}; expected a list of sizes, such as [64, 128]")
    needed = {"normalize": {"kind"}, "dense": {"kind", "units", "bias", "activation"}, "truncate": {"kind", "units"}}
    for step in steps:
        kind = step.get("kind") if isinstance(step, dict) else None
        units = step.get("units", 1) if kind in needed else 0
        if type(units) is not int or units < 1 or not needed[kind] <= set(step):
            raise ConfigError(
                f"no step {step!r:.80} after pooling; expected "
                "{'kind': 'dense', 'units': N, 'bias': True or False, 'activation': NAME}, {'kind': 'normalize'} or "
                "{'kind': 'truncate', 'units': N}"
            )


def scorable(rows: Sequence) -> list[tuple]:
    """The rows of more than a single text."""
    return [tuple(row) for row in rows if not isinstance(row, str) and len(row) > 1]


def head_of(folder: Path) -> HeldHead:
    """The dense layers of a folder of sentence-transformers."""
    return HeldHead(SentenceEmbedding.name, {}, sentence_vectors.read_tensors(folder))
