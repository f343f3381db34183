"""What each of bert4keras' example scripts does with its library, in few lines, for bert4keras and for bert4x alike.

A pattern takes a library (`library("bert4x")`) and a folder of checkpoints (`bert4keras_data.make_small`), and gives
the first numbers that the script would show: losses of batches in order, or what is predicted. New layers begin with
the numbers of `bert4keras_prologue.first_weights`.

    python tests/bert4keras_patterns.py CHECKOUT [NAME ...]   # records bert4keras' in golden/bert4keras_losses.json

CHECKOUT is a checkout of github.com/bojone/bert4keras (recorded: c1ae0dc, 0.11.5, with tf_keras 2.21).
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

GOLDEN = Path(__file__).parent / "golden/bert4keras_losses.json"
RNG_SEED, ROWS, VOCAB = 3, 4, 36


def library(package: str) -> SimpleNamespace:
    """The modules of bert4keras or bert4x, and Keras and K as they give them."""
    names = ("backend", "layers", "models", "optimizers", "snippets", "tokenizers")
    modules = {name: importlib.import_module(f"{package}.{name}") for name in names}
    keras, k = modules["backend"].keras, modules["backend"].K
    return SimpleNamespace(package=package, original=package == "bert4keras", keras=keras, K=k, **modules)


def build(b, folder, name="bert", **options):
    return b.models.build_transformer_model(f"{folder}/{name}/config.json", f"{folder}/{name}/model.ckpt", **options)


def sequences(rows=2 * ROWS, least=4, most=9):
    """Lists of ids, of several lengths."""
    rng = np.random.default_rng(RNG_SEED)
    return [[2, *map(int, rng.integers(5, VOCAB, rng.integers(least, most))), 3] for _ in range(rows)]


def generator(b, make, data):
    """A DataGenerator of batches in order: `make` gives inputs and targets of a sample, `None` for no targets."""

    class Batches(b.snippets.DataGenerator):
        def __iter__(self, random=False):
            batch = []
            for is_end, sample in self.sample(random):
                batch.append(make(sample))
                if len(batch) == self.batch_size or is_end:
                    padded = [
                        b.snippets.sequence_padding(list(part)) for part in zip(*(x for x, _ in batch), strict=True)
                    ]
                    targets = None if batch[0][1] is None else b.snippets.sequence_padding([y for _, y in batch])
                    yield (tuple(padded) if b.original else padded), targets
                    batch = []

    return Batches(data, ROWS)


def losses(b, model, make, data=None, steps=2, **options):
    """The losses of the first batches, as `fit` reports them."""
    from bert4keras_prologue import first_weights

    found = []

    class Recorder(b.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            found.append(float(logs["loss"]))

    first_weights(model, b.original)
    model.compile(run_eagerly=True, **({"optimizer": b.optimizers.Adam(1e-3)} | options))
    batches = generator(b, make, data or sequences())
    model.fit(batches.forfit(random=False), steps_per_epoch=steps, epochs=1, verbose=0, callbacks=[Recorder()])
    return found


def digest(b, *arrays):
    """The root mean square of each array, and its first number."""
    return [float(value) for a in arrays for value in (np.sqrt(np.mean(np.square(a))), np.ravel(a)[0])]


def two_inputs(ids, target=None):
    return (ids, [0] * len(ids)), target


def source_and_target(ids):
    return (ids, [0] * 3 + [1] * (len(ids) - 3)), None


def cross_entropy(b, masked_by_segments):
    """The Loss layer of the scripts for language models and for UniLMs."""

    class CrossEntropy(b.layers.Loss):
        def compute_loss(self, inputs, mask=None):
            y_true, *y_mask, y_pred = inputs
            if masked_by_segments:
                y_mask = y_mask[0][:, 1:]
            else:
                y_mask = 1.0 if mask[1] is None else b.K.cast(mask[1], b.K.floatx())[:, 1:]
            loss = b.K.sparse_categorical_crossentropy(y_true[:, 1:], y_pred[:, :-1])
            return b.K.sum(loss * y_mask) / b.K.sum(y_mask)

    return CrossEntropy


def classifier(b, folder, name="bert", classes=3, **options):
    """A Dense layer on [CLS] of the builder object."""
    bert = build(b, folder, name, return_keras_model=False, **options)
    output = b.keras.layers.Lambda(lambda x: x[:, 0], name="CLS-token")(bert.model.output)
    output = b.keras.layers.Dense(classes, activation="softmax", kernel_initializer=bert.initializer)(output)
    return b.keras.models.Model(bert.model.input, output)


def labelled(ids):
    return two_inputs(ids, [sum(ids) % 3])


SPARSE = {"loss": "sparse_categorical_crossentropy", "metrics": ["sparse_categorical_accuracy"]}


# basic_*


def extract_features(b, folder):
    ids, segments = b.snippets.to_array([sequences()[0]], [[0] * len(sequences()[0])])
    return digest(b, build(b, folder).predict([ids, segments], verbose=0))


def masked_language_model(b, folder):
    model = build(b, folder, with_mlm=True)
    tokenizer = b.tokenizers.Tokenizer(f"{folder}/bert/vocab.txt", do_lower_case=True)
    ids, segments = tokenizer.encode("天地玄黄")
    ids[1] = ids[2] = tokenizer._token_mask_id
    probas = model.predict(b.snippets.to_array([ids], [segments]), verbose=0)[0]
    return [float(tokenizer._vocab_size), *digest(b, probas[1:3])]


def language_model_gpt2(b, folder, name="gpt2"):
    return digest(b, build(b, folder, name, model=name).predict(np.array([sequences()[0]]), verbose=0))


def language_model_gpt2_ml(b, folder):
    return language_model_gpt2(b, folder, "gpt2_ml")


def language_model_without_segments(b, folder):
    model = build(b, folder, "unsegmented", segment_vocab_size=0, application="lm")
    return digest(b, model.predict(np.array([sequences()[0]]), verbose=0))


def compound_tokens(b, folder):
    model = build(b, folder, compound_tokens=[[7], [8, 9]])
    ids = np.array([[2, VOCAB, VOCAB + 1, 3]])
    return digest(b, model.predict([ids, 0 * ids], verbose=0))


def pooled_unilm(b, folder):
    bert = build(b, folder, with_pool="linear", application="unilm", return_keras_model=False)
    encoder = b.keras.models.Model(bert.model.inputs, bert.model.outputs[0])
    seq2seq = b.keras.models.Model(bert.model.inputs, bert.model.outputs[1])
    ids, segments = (
        b.snippets.sequence_padding(part)
        for part in zip(*(source_and_target(i)[0] for i in sequences()[:2]), strict=True)
    )
    return digest(b, encoder.predict([ids, segments], verbose=0), seq2seq.predict([ids, segments], verbose=0)[0])


# task_*: language models


def language_model(b, folder, **options):
    model = build(b, folder, application="lm", keep_tokens=list(range(VOCAB)), **options)
    output = cross_entropy(b, False)(1)([model.inputs[0], model.outputs[0]])
    return losses(b, b.keras.models.Model(model.inputs, output), two_inputs)


def conditional_language_model(b, folder):
    layers = b.keras.layers
    c_in = layers.Input(shape=(1,))
    c = layers.Reshape((16,))(layers.Embedding(2, 16)(c_in))
    model = build(b, folder, application="lm", layer_norm_cond=c, additional_input_layers=c_in)
    output = cross_entropy(b, False)(1)([model.inputs[0], model.outputs[0]])
    model = b.keras.models.Model(model.inputs, output)
    found = losses(b, model, lambda ids: ((*two_inputs(ids)[0], [ids[1] % 2]), None), steps=3)
    return [float(len(model.inputs)), *found]


def image_caption(b, folder):
    layers = b.keras.layers
    image = layers.Input(shape=(4, 4, 3))
    features = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(image))
    model = build(
        b, folder, application="lm", layer_norm_cond=features, layer_norm_cond_hidden_size=6,
        layer_norm_cond_hidden_act="swish", additional_input_layers=image,
    )  # fmt: skip
    output = cross_entropy(b, False)(1)([model.inputs[0], model.outputs[0]])
    pixels = np.linspace(0, 1, 48, dtype="float32").reshape(4, 4, 3)
    return losses(
        b, b.keras.models.Model(model.inputs, output), lambda ids: ((*two_inputs(ids)[0], pixels * ids[1]), None)
    )


def chinese_chess(b, folder):
    tokens = {token: i for i, token in enumerate(["[PAD]", *"0123abc"])}
    tokenizer = b.tokenizers.Tokenizer(tokens)
    tokenizer._token_unk_id = 0
    model = build(b, folder, application="lm", keep_tokens=list(range(8)))
    output = cross_entropy(b, False)(1)([model.inputs[0], model.outputs[0]])

    def sample(text):
        ids, segments = tokenizer.encode(" ".join(text), maxlen=9)
        return ([0, *ids[1:-1]], [0, *segments[1:-1]]), None

    return losses(b, b.keras.models.Model(model.inputs, output), sample, ["a0b1c2", "c3a1b2a0b1", "b1", "a0a0"] * 2)


# task_*: sequence to sequence


def seq2seq(b, folder):
    model = build(b, folder, application="unilm", keep_tokens=list(range(VOCAB)))
    output = cross_entropy(b, True)(2)(model.inputs + model.outputs)
    return losses(b, b.keras.models.Model(model.inputs, output), source_and_target)


def seq2seq_several_devices(b, folder):
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        bert = b.models.build_transformer_model(
            f"{folder}/bert/config.json",
            None,
            application="unilm",
            keep_tokens=list(range(VOCAB)),
            return_keras_model=False,
        )
        output = cross_entropy(b, True)(2)(bert.model.inputs + bert.model.outputs)
        model = b.keras.models.Model(bert.model.inputs, output)
        model.compile(optimizer=b.optimizers.Adam(1e-3))
        bert.load_weights_from_checkpoint(f"{folder}/bert/model.ckpt")

    class Samples(b.snippets.DataGenerator):
        def __iter__(self, random=False):
            yield from (source_and_target(ids)[0] for _, ids in self.sample(False))

    dataset = Samples(sequences(), ROWS).to_dataset(
        types=("float32", "float32"), shapes=([None], [None]), names=("Input-Token", "Input-Segment"), padded_batch=True
    )
    return [float(loss) for loss in model.fit(dataset, steps_per_epoch=1, epochs=2, verbose=0).history["loss"]]


def reading_comprehension_by_mlm(b, folder):
    k = b.K
    model = build(b, folder, with_mlm=True, keep_tokens=list(range(VOCAB)))
    output = b.keras.layers.Lambda(lambda x: x[:, 1:4])(model.output)

    def masked_cross_entropy(y_true, y_pred):
        y_true = k.reshape(y_true, [k.shape(y_true)[0], -1])
        y_mask = k.cast(k.not_equal(y_true, 0), k.floatx())
        return k.sum(k.sparse_categorical_crossentropy(y_true, y_pred) * y_mask) / k.sum(y_mask)

    def sample(ids):
        return two_inputs([2, 4, 4, 4, *ids[1:]], [*ids[1 : 2 + ids[1] % 3], 0, 0, 0][:3])

    return losses(b, b.keras.models.Model(model.input, output), sample, loss=masked_cross_entropy)


# task_*: classes


def classification(b, folder):
    return losses(b, classifier(b, folder), labelled, **SPARSE)


def sentence_similarity(b, folder):
    b.backend.set_gelu("tanh")
    try:
        bert = build(b, folder, with_pool=True, return_keras_model=False)
        output = b.keras.layers.Dropout(0.0)(bert.model.output)
        output = b.keras.layers.Dense(3, activation="softmax", kernel_initializer=bert.initializer)(output)
        return losses(b, b.keras.models.Model(bert.model.input, output), labelled, **SPARSE)
    finally:
        b.backend.set_gelu("erf")


def sentiment_albert(b, folder):
    optimizer = b.optimizers.extend_with_piecewise_linear_lr(b.optimizers.Adam, name="AdamLR")
    optimizer = optimizer(learning_rate=1e-3, lr_schedule={2: 1, 4: 0.1})
    b.backend.set_gelu("tanh")  # as the script does
    try:
        model = classifier(b, folder, "albert", model="albert")
        return losses(b, model, labelled, steps=2, optimizer=optimizer, **SPARSE)
    finally:
        b.backend.set_gelu("erf")


def several_devices(b, folder):
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        bert = b.models.build_transformer_model(f"{folder}/bert/config.json", None, return_keras_model=False)
        output = b.keras.layers.Lambda(lambda x: x[:, 0])(bert.model.output)
        output = b.keras.layers.Dense(3, activation="softmax", name="Probas", kernel_initializer="zeros")(output)
        model = b.keras.models.Model(bert.model.input, output)
        model.compile(optimizer=b.optimizers.Adam(1e-3), **SPARSE)
        bert.load_weights_from_checkpoint(f"{folder}/bert/model.ckpt")

    class Samples(b.snippets.DataGenerator):
        def __iter__(self, random=False):
            yield from ([two_inputs(ids)[0], ([sum(ids) % 3],)] for _, ids in self.sample(False))

    dataset = Samples(sequences(), ROWS).to_dataset(
        types=[("float32", "float32"), ("float32",)], shapes=[([None], [None]), ([1],)],
        names=[("Input-Token", "Input-Segment"), ("Probas",)], padded_batch=True,
    )  # fmt: skip
    return [float(loss) for loss in model.fit(dataset, steps_per_epoch=1, epochs=2, verbose=0).history["loss"]]


def theseus(b, folder):
    """The successor takes over from the predecessor layer by layer; here what is chosen is always the successor's, as
    in evaluation: the loss of `test_on_batch`.
    """
    from bert4keras_prologue import first_weights

    keras, k = b.keras, b.K

    class BinaryRandomChoice(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.supports_masking = True

        def compute_mask(self, inputs, mask=None):
            return None if mask is None else mask[1]

        def call(self, inputs):
            source, target = inputs
            mask = k.random_binomial(shape=[1], p=0.5)
            return k.in_train_phase(mask * source + (1 - mask) * target, target)

        def compute_output_shape(self, input_shape):
            return input_shape[1]

    before = build(b, folder, return_keras_model=False, prefix="Predecessor-")
    after = build(b, folder, return_keras_model=False, num_hidden_layers=1, prefix="Successor-")
    x_in = keras.layers.Input(shape=k.int_shape(before.output)[1:])
    x = keras.layers.Dense(3, activation="softmax")(keras.layers.Lambda(lambda x: x[:, 0])(x_in))
    head = keras.models.Model(x_in, x)
    for layer in before.model.layers:
        layer.trainable = False
    x, y = before.apply_embeddings(before.inputs), after.apply_embeddings(before.inputs)
    x = y = BinaryRandomChoice()([x, y])
    for index in range(before.num_hidden_layers):
        x = before.apply_main_layers(x, index)
    y = after.apply_main_layers(y, 0)
    model = keras.models.Model(before.inputs, head(BinaryRandomChoice()([x, y])))
    first_weights(model, b.original)
    model.compile(run_eagerly=True, **SPARSE)
    inputs, targets = next(generator(b, labelled, sequences()).forfit(random=False))
    return [float(len(model.trainable_weights)), float(model.test_on_batch(inputs, targets)[0])]


# task_*: tagging and triples


def sequence_labelling(b, folder, lr_multiplier=100):
    model = build(b, folder)
    output = model.get_layer("Transformer-1-FeedForward-Norm").output
    crf = b.layers.ConditionalRandomField(lr_multiplier=lr_multiplier)
    output = crf(b.keras.layers.Dense(3)(output))
    model = b.keras.models.Model(model.input, output)
    found = losses(
        b, model, lambda ids: two_inputs(ids, [i % 3 for i in ids]), loss=crf.sparse_loss, metrics=[crf.sparse_accuracy]
    )
    return [*found, *digest(b, b.K.eval(crf.trans))[:1]]


def word_segmentation(b, folder):
    return sequence_labelling(b, folder, 1)


def relation_extraction(b, folder):
    keras, k = b.keras, b.K
    layers = keras.layers
    subject_labels = layers.Input(shape=(None, 2), name="Subject-Labels")
    subject_ids = layers.Input(shape=(2,), name="Subject-Ids")
    object_labels = layers.Input(shape=(None, 3, 2), name="Object-Labels")
    bert = build(b, folder, return_keras_model=False)
    output = layers.Dense(2, activation="sigmoid", kernel_initializer=bert.initializer)(bert.model.output)
    subjects = layers.Lambda(lambda x: x**2)(output)
    output = bert.model.layers[-2].get_output_at(-1)

    def extract(inputs):
        output, ids = inputs
        start, end = (b.backend.batch_gather(output, part) for part in (ids[:, :1], ids[:, 1:]))
        return k.concatenate([start, end], 2)[:, 0]

    subject = layers.Lambda(extract)([output, subject_ids])
    output = b.layers.LayerNormalization(conditional=True)([output, subject])
    output = layers.Dense(6, activation="sigmoid", kernel_initializer=bert.initializer)(output)
    objects = layers.Reshape((-1, 3, 2))(layers.Lambda(lambda x: x**4)(output))

    class TotalLoss(b.layers.Loss):
        def compute_loss(self, inputs, mask=None):
            subject_labels, object_labels, subjects, objects, _ = inputs
            mask = 1.0 if mask[4] is None else k.cast(mask[4], k.floatx())
            first = k.mean(k.binary_crossentropy(subject_labels, subjects), 2)
            second = k.sum(k.mean(k.binary_crossentropy(object_labels, objects), 3), 2)
            return k.sum(first * mask) / k.sum(mask) + k.sum(second * mask) / k.sum(mask)

    subjects, objects = TotalLoss([2, 3])([subject_labels, object_labels, subjects, objects, bert.model.output])
    model = keras.models.Model([*bert.model.inputs, subject_labels, subject_ids, object_labels], [subjects, objects])

    def sample(ids):
        first, second = np.zeros((len(ids), 2)), np.zeros((len(ids), 3, 2))
        first[1, 0] = first[2, 1] = second[3, ids[1] % 3] = 1
        return (*two_inputs(ids)[0], first, np.array([1, 2]), second), None

    optimizer = b.optimizers.extend_with_exponential_moving_average(b.optimizers.Adam, name="AdamEMA")
    return losses(b, model, sample, optimizer=optimizer(learning_rate=1e-3))


def gplinker(b, folder):
    k = b.K
    base = build(b, folder, return_keras_model=False)
    pointer = b.layers.EfficientGlobalPointer
    outputs = [
        pointer(heads=2, head_size=4)(base.model.output),
        pointer(heads=3, head_size=4, RoPE=False, tril_mask=False)(base.model.output),
    ]

    def crossentropy(y_true, y_pred):
        shape = k.shape(y_pred)
        y_true = y_true[..., 0] * k.cast(shape[2], k.floatx()) + y_true[..., 1]
        y_pred = k.reshape(y_pred, (shape[0], -1, k.prod(shape[2:])))
        loss = b.backend.sparse_multilabel_categorical_crossentropy(y_true, y_pred, True)
        return k.mean(k.sum(loss, axis=1))

    from bert4keras_prologue import first_weights

    model = b.keras.models.Model(base.model.inputs, outputs)
    first_weights(model, b.original)
    model.compile(loss=crossentropy, optimizer=b.optimizers.Adam(1e-3), run_eagerly=True)
    ids, segments = next(generator(b, two_inputs, sequences()).forfit(random=False))[0]
    labels = [np.tile([[[1, 2]]], (ROWS, heads, 1, 1)).astype("float32") for heads in (2, 3)]
    return [float(np.ravel(model.train_on_batch([ids, segments], labels))[0]) for _ in range(2)]


# pretraining


def pretraining(b, folder, application, name):
    """The three losses of the training script: layers that are losses, and a dict of what becomes of them."""
    keras, k = b.keras, b.K
    options = {} if application == "encoder" else {"application": application}
    bert = build(b, folder, with_mlm="linear", return_keras_model=False, **options)
    proba, inputs = bert.model.output, list(bert.model.inputs)
    token_ids = inputs[0]
    if application == "encoder":
        token_ids = keras.layers.Input(shape=(None,), dtype="int64", name="token_ids")
        inputs += [token_ids, keras.layers.Input(shape=(None,), dtype=k.floatx(), name="is_masked")]
        parts = [token_ids, proba, inputs[-1]]
    else:
        parts = [token_ids, proba, *(inputs[1:] if application == "unilm" else [])]

    def function(inputs, mask=None):
        y_true, y_pred = inputs[:2]
        weights = 1.0 if mask is None or mask[1] is None else k.cast(mask[1][:, 1:], k.floatx())
        if application == "encoder":
            weights = inputs[2]
        else:
            y_true, y_pred = y_true[:, 1:], y_pred[:, :-1]
        if application == "unilm":
            weights = weights * k.cast(inputs[2], k.floatx())[:, 1:]
        loss = k.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        return k.reshape(k.sum(loss * weights) / (k.sum(weights) + k.epsilon()), (1,))

    model = keras.models.Model(inputs, [keras.layers.Lambda(function, name=f"{name}_loss")(parts)])
    optimizer = b.optimizers.extend_with_weight_decay(b.optimizers.Adam)
    optimizer = b.optimizers.extend_with_layer_adaptation(optimizer)
    optimizer = b.optimizers.extend_with_piecewise_linear_lr(optimizer)(
        learning_rate=1e-3, lr_schedule={2: 1.0, 6: 0.0}, weight_decay_rate=0.01, bias_correction=False,
        exclude_from_weight_decay=["Norm", "bias"], exclude_from_layer_adaptation=["Norm", "bias"],
    )  # fmt: skip

    def sample(ids):
        first = source_and_target(ids)[0] if application == "unilm" else two_inputs(ids)[0]
        more = (ids, [float(i % 2) for i in ids]) if application == "encoder" else ()
        return (*first, *more), [0.0]

    return losses(b, model, sample, loss={f"{name}_loss": lambda y_true, y_pred: y_pred}, optimizer=optimizer)


def pretraining_roberta(b, folder):
    return pretraining(b, folder, "encoder", "mlm")


def pretraining_gpt(b, folder):
    return pretraining(b, folder, "lm", "lm")


def pretraining_unilm(b, folder):
    return pretraining(b, folder, "unilm", "unilm")


# Which pattern each script uses; the three against adversaries have tests of their own.
PATTERNS = {
    "basic_extract_features": extract_features,
    "basic_gibbs_sampling_via_mlm": masked_language_model,
    "basic_language_model_cpm_lm": language_model_gpt2,
    "basic_language_model_gpt2_ml": language_model_gpt2_ml,
    "basic_language_model_nezha_gen_gpt": language_model_without_segments,
    "basic_make_uncased_model_cased": compound_tokens,
    "basic_masked_language_model": masked_language_model,
    "basic_simple_web_serving_simbert": pooled_unilm,
    "task_conditional_language_model": conditional_language_model,
    "task_iflytek_bert_of_theseus": theseus,
    "task_iflytek_multigpu": several_devices,
    "task_image_caption": image_caption,
    "task_language_model": language_model,
    "task_language_model_chinese_chess": chinese_chess,
    "task_question_answer_generation_by_seq2seq": seq2seq,
    "task_reading_comprehension_by_mlm": reading_comprehension_by_mlm,
    "task_reading_comprehension_by_seq2seq": seq2seq,
    "task_relation_extraction": relation_extraction,
    "task_relation_extraction_gplinker": gplinker,
    "task_sentence_similarity_lcqmc": sentence_similarity,
    "task_sentiment_albert": sentiment_albert,
    "task_seq2seq_ape210k_math_word_problem": seq2seq,
    "task_seq2seq_autotitle": seq2seq,
    "task_seq2seq_autotitle_csl": seq2seq,
    "task_seq2seq_autotitle_multigpu": seq2seq_several_devices,
    "task_sequence_labeling_cws_crf": word_segmentation,
    "task_sequence_labeling_ner_crf": sequence_labelling,
    "pretraining (roberta)": pretraining_roberta,
    "pretraining (gpt)": pretraining_gpt,
    "pretraining (unilm)": pretraining_unilm,
}
TENSORFLOW_ONLY = {several_devices, seq2seq_several_devices}


def record(checkout: Path, names: list[str]) -> None:
    """Runs patterns, all or those named, with bert4keras itself."""
    from bert4keras_prologue import use_tf_keras
    from bert4keras_scripts import patched

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        code = f"import bert4keras_data; from pathlib import Path; bert4keras_data.make_small(Path({str(folder)!r}))"
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True)
        os.environ |= {
            "TF_KERAS": "1",
            "TF_USE_LEGACY_KERAS": "1",
            "BERT4KERAS_PATCHED": str(patched(checkout, folder)),
        }
        use_tf_keras(graphs=False)
        b, found = library("bert4keras"), json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        for pattern in dict.fromkeys(PATTERNS.values()):
            if not names or pattern.__name__ in names:
                b.keras.backend.clear_session()
                found[pattern.__name__] = pattern(b, folder)
                print(pattern.__name__, found[pattern.__name__], flush=True)
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2:])
