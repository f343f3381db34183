"""bert4keras' corpora for pretraining, by their names: sentences to files of TensorFlow records, and batches of them.

A row is `sequence_length` ids: [CLS], whole sentences, [SEP], padding. Records are bert4keras', so its files are read
here and ours there. The loss and everything else is a script's: outputs are named `mlm_loss`, `lm_loss` or
`unilm_loss`. For pretraining without a script of one's own see `recipes/pretraining.py`.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from bert4x.errors import InputError
from bert4x.snippets import parallel_apply
from bert4x.training.records import RecordWriter, example

__all__ = ["TrainingDataset", "TrainingDatasetGPT", "TrainingDatasetRoBERTa", "TrainingDatasetUniLM"]


class TrainingDataset:
    """Base of the three: fills rows with sentences.

    Subclasses say in `sentence_process` what a sentence is, a list for each of `keys`.

    Args:
        tokenizer: a `bert4x.Tokenizer`.
        sequence_length: ids in a row.
    Raises: InputError for a length below 3.
    """

    keys: tuple[str, ...] = ()

    def __init__(self, tokenizer: Any, sequence_length: int = 512):
        if sequence_length < 3:
            raise InputError(f"sequence_length is {sequence_length}; expected 3 or more: [CLS], a token, [SEP]")
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length
        self.token_pad_id = tokenizer._token_pad_id
        self.token_cls_id = tokenizer._token_start_id
        self.token_sep_id = tokenizer._token_end_id
        self.token_mask_id = tokenizer._token_mask_id
        self.vocab_size = tokenizer.vocab_size

    def padding(self, sequence: list[int], padding_value: int | None = None) -> list[int]:
        """A sequence of exactly `sequence_length`, cut or padded at its end."""
        value = self.token_pad_id if padding_value is None else padding_value
        return (sequence + [value] * self.sequence_length)[: self.sequence_length]

    def sentence_process(self, text: str) -> list[list[int]]:
        """The ids of a sentence without [CLS] and [SEP], and what goes with each of them."""
        raise NotImplementedError(f"{type(self).__name__} does not define sentence_process(self, text)")

    def paragraph_process(
        self,
        texts: Iterable[str],
        starts: Sequence[int] | None = None,
        ends: Sequence[int] | None = None,
        paddings: Sequence[int] | None = None,
    ) -> list[list[list[int]]]:
        """The rows of a document's sentences: each takes sentences for as long as the next one fits; a sentence longer
        than a row is cut.

        Args:
            starts, ends, paddings: for each of `keys` what stands first, last and behind; ids of [CLS], [SEP] and
                [PAD], then zeros.
        """
        zeros = [0] * (len(self.keys) - 1)
        starts = [self.token_cls_id, *zeros] if starts is None else starts
        ends = [self.token_sep_id, *zeros] if ends is None else ends
        paddings = [self.token_pad_id, *zeros] if paddings is None else paddings
        rows, row = [], [[start] for start in starts]

        def complete():
            rows.append([self.padding([*part, end], pad) for part, end, pad in zip(row, ends, paddings, strict=True)])

        for text in texts:
            sentence = [part[: self.sequence_length - 2] for part in self.sentence_process(text)]
            if len(row[0]) + len(sentence[0]) > self.sequence_length - 1:
                complete()
                row = [[start] for start in starts]
            for part, more in zip(row, sentence, strict=True):
                part.extend(more)
        complete()
        return rows

    def tfrecord_serialize(self, instances: Iterable[Sequence[Sequence[int]]]) -> list[bytes]:
        """Rows as `tf.train.Example`s, in bytes."""
        return [example(dict(zip(self.keys, instance, strict=True))) for instance in instances]

    def process(
        self, corpus: Iterable[Iterable[str]], record_name: str, workers: int = 8, max_queue_size: int = 2000
    ) -> None:
        """Writes the rows of all documents into a file of records, and prints how many they are.

        Args:
            corpus: documents, each a list of sentences.
            record_name: the file; what it held is replaced when all is written.
            workers: processes. With several, rows come in the order in which they are ready.
        Raises: as `bert4x.snippets.parallel_apply`; then there is no file.
        """
        with RecordWriter(record_name) as writer:
            parallel_apply(
                func=lambda texts: self.tfrecord_serialize(self.paragraph_process(texts)),
                iterable=corpus,
                workers=workers,
                max_queue_size=max_queue_size,
                callback=writer.write_all,
            )
        print(f"write {writer.count} examples into {record_name}")

    @staticmethod
    def load_records(
        record_names: str | os.PathLike | Sequence[str],
        sequence_length: int,
        batch_size: int,
        keys: Sequence[str],
        parse: Callable[[dict[str, Any]], tuple[dict, dict]],
    ) -> Any:
        """A tf.data.Dataset of batches without end, shuffled among 1000 batches' rows; needs TensorFlow.

        Args:
            parse: from the tensors of a row, by key, to inputs and targets, by name. Shape: (sequence_length,) int64
        Raises: InputError for files that are not there.
        """
        import tensorflow as tf

        features = {key: tf.io.FixedLenFeature([sequence_length], tf.int64) for key in keys}
        names = [record_names] if isinstance(record_names, str | os.PathLike) else list(record_names)
        missing = [name for name in names if "://" not in str(name) and not os.path.isfile(name)]
        if missing or not names:
            raise InputError(f"no files of records at {missing}; expected those that `process` wrote")
        dataset = tf.data.TFRecordDataset([os.fspath(name) for name in names])
        dataset = dataset.map(lambda record: parse(tf.io.parse_single_example(record, features)))
        return dataset.repeat().shuffle(batch_size * 1000).batch(batch_size)


def no_targets(*names: str) -> dict:
    """Targets for outputs that are losses themselves."""
    import tensorflow as tf

    return {name: tf.zeros([1]) for name in names}


class TrainingDatasetRoBERTa(TrainingDataset):
    """Masked tokens, whole words at a time: of a masked word each token becomes [MASK] with probability 0.8, stays
    with 0.1 and is drawn anew with 0.1 (Devlin et al. 2018; Cui et al. 2019, arXiv 1906.08101).

    Records have `token_ids` and `mask_ids`, which is 0 where nothing is masked, or the id to be read there, plus 1.

    Args:
        word_segment: a function from a sentence to its words, such as `jieba.lcut`.
        mask_rate: the probability that a word is masked.
    """

    keys = ("token_ids", "mask_ids")

    def __init__(
        self,
        tokenizer: Any,
        word_segment: Callable[[str], Iterable[str]],
        mask_rate: float = 0.15,
        sequence_length: int = 512,
    ):
        super().__init__(tokenizer, sequence_length)
        self.word_segment = word_segment
        self.mask_rate = mask_rate

    def token_process(self, token_id: int) -> int:
        """What is read in place of a token that is masked."""
        drawn = np.random.random()
        if drawn <= 0.8:
            return self.token_mask_id
        return token_id if drawn <= 0.9 else int(np.random.randint(0, self.vocab_size))

    def sentence_process(self, text):
        words = list(self.word_segment(text))
        token_ids, mask_ids = [], []
        for drawn, word in zip(np.random.random(len(words)), words, strict=True):
            ids = self.tokenizer.tokens_to_ids(self.tokenizer.tokenize(word)[1:-1])
            masked = drawn < self.mask_rate
            token_ids += ids
            mask_ids += [self.token_process(i) + 1 for i in ids] if masked else [0] * len(ids)
        return [token_ids, mask_ids]

    @staticmethod
    def load_tfrecord(record_names, sequence_length: int, batch_size: int) -> Any:
        """Batches: inputs `Input-Token`, `Input-Segment`, `token_ids` and `is_masked`, all (B, T); targets `mlm_loss`
        and `mlm_acc`, zeros.
        """
        import tensorflow as tf

        def parse(row):
            token_ids, mask_ids = row["token_ids"], row["mask_ids"]
            masked = tf.not_equal(mask_ids, 0)
            inputs = {
                "Input-Token": tf.where(masked, mask_ids - 1, token_ids),
                "Input-Segment": tf.zeros_like(token_ids),
                "token_ids": token_ids,
                "is_masked": tf.cast(masked, "float32"),
            }
            return inputs, no_targets("mlm_loss", "mlm_acc")

        keys = TrainingDatasetRoBERTa.keys
        return TrainingDataset.load_records(record_names, sequence_length, batch_size, keys, parse)


class TrainingDatasetGPT(TrainingDataset):
    """Texts from left to right. Records have `token_ids`."""

    keys = ("token_ids",)

    def sentence_process(self, text):
        return [self.tokenizer.tokens_to_ids(self.tokenizer.tokenize(text)[1:-1])]

    @staticmethod
    def load_tfrecord(record_names, sequence_length: int, batch_size: int) -> Any:
        """Batches: inputs `Input-Token` and `Input-Segment`, (B, T); targets `lm_loss` and `lm_acc`, zeros."""
        import tensorflow as tf

        def parse(row):
            token_ids = row["token_ids"]
            inputs = {"Input-Token": token_ids, "Input-Segment": tf.zeros_like(token_ids)}
            return inputs, no_targets("lm_loss", "lm_acc")

        keys = TrainingDatasetGPT.keys
        return TrainingDataset.load_records(record_names, sequence_length, batch_size, keys, parse)


class TrainingDatasetUniLM(TrainingDatasetGPT):
    """A source and a target, parted where chance has it, anew each time that a row is read. Records are those of
    `TrainingDatasetGPT`.
    """

    @staticmethod
    def load_tfrecord(record_names, sequence_length: int, batch_size: int, token_sep_id: int) -> Any:
        """Batches: inputs `Input-Token` and `Input-Segment`, (B, T); targets `unilm_loss` and `unilm_acc`, zeros.

        A [SEP] is put between source and target, and the last token falls out. Segments are 1 from behind it on.
        """
        import tensorflow as tf

        def parse(row):
            token_ids = row["token_ids"]
            length = tf.random.uniform([], 1, sequence_length - 1, "int64")
            separator = tf.constant([token_sep_id], "int64")
            inputs = {
                "Input-Token": tf.concat([token_ids[:length], separator, token_ids[length:-1]], 0),
                "Input-Segment": tf.cast(tf.range(sequence_length, dtype="int64") > length, "int64"),
            }
            inputs = {name: tf.ensure_shape(values, [sequence_length]) for name, values in inputs.items()}
            return inputs, no_targets("unilm_loss", "unilm_acc")

        keys = TrainingDatasetUniLM.keys
        return TrainingDataset.load_records(record_names, sequence_length, batch_size, keys, parse)
