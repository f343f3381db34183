"""Universal extraction: published heads answer as by hand, schemas and windows, readers, training from few examples."""

import json
import pickle

import keras
import numpy as np
import pytest
from make_checkpoints import assert_same_bits, config_of, draw, read_all, write_checkpoint
from test_foreign_containers import paddle_names
from test_heads import sigmoid

import bert4x
from bert4x.checkpoints.formats.safetensors_file import write_safetensors
from bert4x.checkpoints.inspection import inspect
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.tensors import from_array
from bert4x.errors import ConfigError, DataError, InputError
from bert4x.tasks.readers import read_answers
from bert4x.tasks.schema import Wanted, parse_schema, prompt, schema_of, spelled
from bert4x.tasks.universal_extraction import UniversalExtraction, chosen_by_most

TOKENS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *dict.fromkeys("人物的国籍地点评价好坏张三李四王五在北京南来了[],，。"),
]
TEXT = "😀张三在北京，李四来了。 王五在南京。"


@pytest.fixture
def published(tmp_path):
    """A UIE as conversions of PaddleNLP's write it: the model is `encoder`, and the config calls it a BERT."""
    folder = tmp_path / "uie"
    sizes = {"num_hidden_layers": 1, "segment_vocab_size": 4, "max_position": 96, "layer_norm_eps": 1e-5}
    c = config_of("ernie", vocab_size=len(TOKENS), use_task_id=True, task_vocab_size=3, **sizes)
    weights = {p: v + p.endswith("gamma") for p, v in draw(c).items() if not p.startswith(("MLM", "NSP"))}
    write_checkpoint(folder, "hf", c, {p: v.astype("f4") for p, v in weights.items()})
    tensors = {t.name.replace("ernie.", "encoder."): t.read() for t in open_checkpoint(folder).tensors.values()}
    generator = np.random.default_rng(2)
    head = {f"linear_{end}.weight": generator.normal(0, 0.6, (1, c.hidden_size)) for end in ("start", "end")}
    head |= {"linear_start.bias": np.array([-0.4]), "linear_end.bias": np.array([-0.2])}
    head = {name: values.astype("f4") for name, values in head.items()}
    write_safetensors(folder / "model.safetensors", [from_array(n, np.array(x)) for n, x in (tensors | head).items()])
    said = json.loads((folder / "config.json").read_text("utf-8"))
    said |= {"architectures": ["UIE"], "model_type": "bert"}
    del said["use_task_id"]
    (folder / "config.json").write_text(json.dumps(said), "utf-8")
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n", "utf-8")
    return folder, head


def by_hand(folder, head, asked, text):
    """The odds of all tokens of [CLS] prompt [SEP] text [SEP], and where these stand in the text."""
    model = bert4x.load(folder)
    (ids, offsets), (before, _) = (model.tokenizer.encode_with_offsets(x) for x in (text, asked))
    inputs = [np.array([[*before, *ids[1:]]]), np.array([[0] * len(before) + [1] * (len(ids) - 1)])]
    hidden = keras.ops.convert_to_numpy(model(inputs))[0]
    odds = [sigmoid(hidden @ head[f"linear_{e}.weight"][0] + head[f"linear_{e}.bias"]) for e in ("start", "end")]
    return np.stack(odds, -1), len(before), offsets[1:-1]


def paired(starts, ends):
    """Taskflow's pairing: two pointers, of which the smaller moves on; an end keeps the last start before it."""
    pairs, i, j = {}, 0, 0
    while i < len(starts) and j < len(ends):
        if starts[i] <= ends[j]:
            pairs[ends[j]] = starts[i]
            j += starts[i] == ends[j]
            i += 1
        else:
            j += 1
    return sorted((start, end) for end, start in pairs.items())


def assert_near(found, expected):
    """The same answers, whose probabilities are those of other batches: they round otherwise."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_near(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_near(one, other)
    else:
        assert found == (pytest.approx(expected, abs=2e-5) if isinstance(expected, float) else expected)


def test_a_published_head_answers(published, tmp_path):
    folder, head = published
    found = inspect(folder)
    assert found.family == "ernie" and found.head["task"] == "universal-extraction" and not found.unexpected
    task = bert4x.pipeline("universal-extraction", folder, schema={"人物": "国籍"})
    odds, first, offsets = by_hand(folder, head, "人物", TEXT)
    inside = odds[first:-1]
    starts, ends = (np.flatnonzero(inside[:, i] > 0.5).tolist() for i in (0, 1))
    pairs = paired(starts, ends)
    assert len(pairs) > 1
    ours = task(TEXT)["人物"]
    assert [(one["start"], one["end"]) for one in ours] == [(offsets[a][0], offsets[b][1]) for a, b in pairs]
    assert all(TEXT[one["start"] : one["end"]] == one["text"] for one in ours)
    expected = [inside[a, 0] * inside[b, 1] for a, b in pairs]
    np.testing.assert_allclose([one["probability"] for one in ours], expected, atol=2e-5)
    related = [(one, task(TEXT, schema=f"{one['text']}的国籍")) for one in ours]
    assert any(answer for _, answer in related)
    for one, answer in related:
        spans = next(iter(answer.values()), [])
        assert_near(one.get("relations", {}).get("国籍", []), spans)
    assert_near(task([TEXT, "", "南京"], batch_size=2)[:2], [task(TEXT), {}])

    own = bert4x.convert(folder, tmp_path / "own", "bert4x")
    assert bert4x.pipeline("information_extraction", own, schema={"人物": "国籍"})(TEXT) == task(TEXT)
    back = bert4x.convert(own, tmp_path / "back", "hf")
    assert_same_bits(read_all(back), read_all(folder))
    tensors = open_checkpoint(back).tensors
    assert all(np.array_equal(tensors[name].read(), values) for name, values in head.items())
    assert json.loads((back / "config.json").read_text("utf-8"))["architectures"] == ["UIE"]
    tensors = {t.name: np.array(t.read()) for t in open_checkpoint(folder).tensors.values()}
    said = json.loads((folder / "config.json").read_text("utf-8"))
    inner = {key: said[key] for key in said if key not in ("model_type", "architectures")} | {
        "init_class": "ErnieModel"
    }
    (paddle := tmp_path / "paddle").mkdir()
    (paddle / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
    (paddle / "model_config.json").write_text(json.dumps({"init_args": [inner], "init_class": "UIE"}), "utf-8")
    state = dict(paddle_names(name, values) for name, values in tensors.items())
    (paddle / "model_state.pdparams").write_bytes(pickle.dumps(state, 4))
    assert bert4x.pipeline("universal-extraction", paddle, schema={"人物": "国籍"})(TEXT) == task(TEXT)
    with pytest.raises(ConfigError, match=r"nothing to look for.*schema=\['人物'\]"):
        bert4x.pipeline("universal-extraction", folder)(TEXT)
    assert UniversalExtraction(bert4x.load(folder), "人物", maxlen=96)(TEXT) == task(
        TEXT, schema="人物"
    )  # its head, no new one


def test_choices_and_long_texts(published):
    """A choice lies in the prompt, in half-width characters; each token of a long text belongs to one window."""
    folder, head = published
    task = UniversalExtraction.load(folder, schema="评价［好，坏］", threshold=0.01, maxlen=32)
    odds, _, _ = by_hand(folder, head, "评价[好,坏]", "张三")
    scores = {"好": odds[4, 0] * odds[4, 1], "坏": odds[6, 0] * odds[6, 1]}
    best = max(scores, key=scores.get)
    ((chosen,),) = task("张三").values()
    assert chosen == {"text": best, "probability": pytest.approx(scores[best], abs=2e-5)}
    text = task.encoded("张三在北京，李四来了。" * 6)
    windows = task.windows(text, prompt(Wanted("人物")), [(0, 2), (27, 29)])
    owned = [window.offsets[n] for window in windows for n in range(*window.owned) if n < len(window.offsets)]
    assert owned == text.offsets and len(windows) > 3 and max(window.length for window in windows) == 32
    held = {text.text[w.offsets[a - w.first][0] : w.offsets[b - w.first][1]] for w in windows for a, b in w.spans}
    assert held == {"张三", text.text[27:29]}
    answers = UniversalExtraction.load(folder, schema="人物", maxlen=32)(text.text)["人物"]
    places = [(one["start"], one["end"]) for one in answers]
    assert places == sorted(set(places)) and places[-1][1] > 40
    votes = [
        [{"text": "a", "probability": 0.6}],
        [{"text": "b", "probability": 0.9}],
        [],
        [{"text": "a", "probability": 0.8}],
    ]
    assert chosen_by_most(votes) == [{"text": "a", "probability": pytest.approx(0.7)}]


def test_schemas():
    schema = ["时间", {"电影": ["导演", {"演员": "生日"}], "触发词": "震级"}]
    wanted = parse_schema(schema)
    assert spelled(wanted) == ["时间", {"电影": ["导演", {"演员": ["生日"]}]}, {"触发词": ["震级"]}]
    assert parse_schema(spelled(wanted)) == wanted and parse_schema("时间") == (Wanted("时间"),)
    asked = prompt(Wanted("情感倾向［正向，负向］"), "位置")
    assert asked.text == "位置的情感倾向[正向,负向]"
    assert [asked.text[slice(*place)] for place in asked.options] == ["正向", "负向"]
    for wrong in ([3], [{}], {"a": [""]}, ["a", "a"], [["a"]]):
        with pytest.raises(DataError, match="the schema holds"):
            parse_schema(wrong)
    with pytest.raises(DataError, match="is no choice"):
        prompt(Wanted("情感[正向]"))


def test_readers(tmp_path):
    """doccano's spans and relations, SKE's triples wherever their words stand, BIO tags by other names, and our own."""
    person = {"text": "张三", "start": 0, "end": 2, "relations": {"国籍": [{"text": "中国", "start": 3, "end": 5}]}}
    expected = [{"text": "张三是中国人", "answers": {"人物": [person]}}]
    ske = {"subject": "张三", "subject_type": "人物", "predicate": "国籍", "object": "中国", "object_type": "国家"}
    spans = [{"id": 1, "label": "PER", "start_offset": 0, "end_offset": 2}]
    spans += [{"id": 2, "label": "国家", "start_offset": 3, "end_offset": 5}]
    doccano = {"entities": spans, "relations": [{"from_id": 1, "to_id": 2, "type": "国籍"}]}
    country = {"国家": [{"text": "中国", "start": 3, "end": 5}]}
    for row, others in (({"spo_list": [ske]}, {}), (doccano, country), (expected[0], {})):
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps({"text": "张三是中国人"} | row, ensure_ascii=False) + "\n", "utf-8")
        rows = read_answers(path, {"PER": "人物"})
        assert rows == [{"text": "张三是中国人", "answers": expected[0]["answers"] | others}]
    assert schema_of(rows) == [{"人物": ["国籍"]}]
    (tmp_path / "a.bio").write_text("张 B-PER\n三 I-PER\n是 O\n", "utf-8")
    answers = {"人物": [{"text": "张三", "start": 0, "end": 2}]}
    assert read_answers(tmp_path / "a.bio", {"PER": "人物"}) == [{"text": "张三是", "answers": answers}]
    person["start"] = 1
    path.write_text(json.dumps(expected[0], ensure_ascii=False) + "\n", "utf-8")
    with pytest.raises(DataError, match=r"line 1: characters 1 to 2 are not '张三'"):
        read_answers(path)


def person(text, words, **relations):
    place = {"text": words, "start": text.index(words), "end": text.index(words) + len(words)}
    return place | ({"relations": relations} if relations else {})


def rows():
    made = []
    for who in ("张三", "李四", "王五"):
        for where in ("北京", "南京"):
            text = f"{who}在{where}。"
            answers = {"人物": [person(text, who, 地点=[person(text, where)])], "评价[好,坏]": [{"text": "好"}]}
            made += [{"text": text, "answers": answers}, {"text": f"来了。{where}", "answers": {}}]
    return made


def test_training(tmp_path):
    """Prompts of what a text has and of what it has not; the loss is that of both, and falls; the folder answers."""
    keras.utils.set_random_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    model = bert4x.build_transformer_model(
        model="bert", vocab_size=len(TOKENS), max_position=48, pad_token_id=0, dropout_rate=0.0, **sizes
    )
    model.tokenizer = bert4x.Tokenizer({token: i for i, token in enumerate(TOKENS)})
    task = UniversalExtraction(model, schema_of(rows()), dropout=0.0, maxlen=48, negatives=9)
    examples = task.prepare(rows())
    assert sum(not window.spans for window in examples) == 6 and len(examples) == 24 and not task.skipped
    assert len(UniversalExtraction(model, schema_of(rows()), negatives=0, maxlen=48).prepare(rows())) == 18
    inputs, (labels, real) = task.batch(examples, 40)

    def losses():
        scores = keras.ops.convert_to_numpy(task.model([keras.ops.convert_to_tensor(x) for x in inputs]))
        each = -np.where(labels > 0, np.log(sigmoid(scores)), np.log(1 - sigmoid(scores))).mean(-1)[real > 0]
        return float(task.loss(scores, (labels, real))), each.mean()

    before, by_hand = losses()
    assert before == pytest.approx(by_hand, rel=1e-4)
    task.fit(rows(), epochs=12, batch_size=24, learning_rate=1e-2, verbose=False)
    assert losses()[0] < before / 2
    scores = task.evaluate(rows())
    assert set(scores) == {"f1", "precision", "recall", "entity_f1", "relation_f1"}
    again = bert4x.pipeline("universal-extraction", task.save(tmp_path / "run"))
    assert again.schema == [{"人物": ["地点"]}, "评价[好,坏]"] and again(TEXT) == task(TEXT)
    strange = {"text": "张三", "answers": {"公司": [{"text": "张三", "start": 0, "end": 2}]}}
    with pytest.raises(DataError, match="'公司' of '张三' is not in the schema"):
        task.prepare([strange])
    with pytest.raises(InputError, match="a prompt has up to"):
        task("张三", schema="人物" * 40)
