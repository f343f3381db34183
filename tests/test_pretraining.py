"""Pretraining: what the model is fed, that one graph is all three applications, and that a resumed run is the same."""

import json
import lzma
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
from recipe_runs import load_recipe
from safetensors.numpy import save_file

import bert4x
from bert4x.errors import CheckpointNotFoundError, ConfigError, CorruptFileError, DataError, InputError, RunError
from bert4x.recipe import parse
from bert4x.training.corpus import BUCKETS, CorpusFile, Packer, cache_rows
from bert4x.training.loop import read_metrics
from bert4x.training.mixture import Mixture
from bert4x.training.objectives import OBJECTIVES, PADDING, Mix, Specials, make_batch, mask_tokens
from bert4x.training.vocabulary import corpus_vocabulary, count_characters, trim_vocabulary
from bert4x.training.words import Words

LINES = ["春眠不觉晓，处处闻啼鸟。", "夜来风雨声，花落知多少。", "白日依山尽，黄河入海流。", "欲穷千里目，更上一层楼！"]
TITLES = ["春晓", "登鹳雀楼"]
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set("".join(LINES + TITLES)))]


@pytest.fixture(scope="module")
def tokenizer():
    return bert4x.Tokenizer({token: i for i, token in enumerate(TOKENS)}, do_lower_case=True)


@pytest.fixture(scope="module")
def encode(tokenizer):
    return lambda texts: [ids[1:-1] for ids in tokenizer.encode_batch(texts)[0]]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Prose with long and short documents, and titled poems."""
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    prose = ["\n".join(rng.choice(LINES, rng.integers(1, 60))) for _ in range(60)]
    (folder / "prose.txt").write_text("\n\n".join(prose) + "\n", encoding="utf-8")
    with lzma.open(folder / "poems.tsv.xz", "wt", encoding="utf-8") as file:
        for i in range(200):
            file.write(f"{TITLES[i % 2]}\t某人\t{''.join(LINES[i % 2 * 2 : i % 2 * 2 + 2])}\n")
    return [CorpusFile(folder / "prose.txt", 2.0), CorpusFile(folder / "poems.tsv.xz", 0.5)]


@pytest.fixture(scope="module")
def files(sources, encode, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    return [cache_rows(source, folder, encode, TOKENS) for source in sources]


def test_a_source_on_the_command_line():
    assert CorpusFile.parse("a/b.txt.xz") == CorpusFile(Path("a/b.txt.xz"))
    assert CorpusFile.parse("b.txt:0.5:lines") == CorpusFile(Path("b.txt"), 0.5, True)
    assert CorpusFile.parse("b.txt:lines").one_a_line
    assert CorpusFile.parse("b.txt:3").weight == 3 and CorpusFile.parse("x/prose.txt.xz:3").name == "prose"
    with pytest.raises(InputError, match=r"1\.2\.3"):
        CorpusFile.parse("b.txt:1.2.3")
    with pytest.raises(InputError, match="no text file"):
        CorpusFile.parse("nowhere.txt").held_out_from()


def test_the_last_hundredth_of_the_lines_is_held_out(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"第{i}行\n" for i in range(250)), encoding="utf-8")
    source = CorpusFile(path, one_a_line=True)
    assert source.held_out_from() == 247  # 2.5 lines, rounded up
    assert [text for (text,) in source.training_documents()] == [f"第{i}行" for i in range(247)]
    assert [text for (text,) in source.held_out_documents()] == ["第247行", "第248行", "第249行"]


def test_empty_lines_end_documents(tmp_path):
    path = tmp_path / "prose.txt"
    path.write_text("甲\n乙\n\n\n丙\n", encoding="utf-8")
    assert list(CorpusFile(path).documents()) == [["甲", "乙"], ["丙"]]
    assert list(CorpusFile(path, one_a_line=True).documents()) == [["甲"], ["乙"], ["丙"]]


def test_packing_keeps_every_token_in_order(encode):
    packer = Packer(TOKENS, np.random.default_rng(1))
    document = LINES * 40 + ["山" * 700]  # one sentence longer than any row
    rows = list(packer.rows(encode(document)))
    assert [token for row in rows for token in row] == [token for ids in encode(document) for token in ids]
    assert max(map(len, rows)) <= BUCKETS[-1] - 3 and len({len(row) for row in rows}) > 3
    enders = {TOKENS.index("。"), TOKENS.index("！")}
    whole = [row for row in rows if TOKENS.index("山") not in row[-2:]]
    assert all(row[-1] in enders for row in whole)  # rows end where sentences do


def test_poems_keep_their_title_half_of_the_time(files):
    poems = files[1]
    titled = [TOKENS.index("[SEP]") in poems[i] for i in range(len(poems))]
    assert 0.35 < np.mean(titled) < 0.65
    row = poems[titled.index(True)].tolist()
    assert [TOKENS[i] for i in row[: row.index(3)]] in [list(title) for title in TITLES]


def test_cache_is_made_once_and_refuses_other_settings(sources, encode, tmp_path):
    first = cache_rows(sources[1], tmp_path, encode, TOKENS)

    def fail(texts):
        raise AssertionError("tokenized again")

    second = cache_rows(sources[1], tmp_path, fail, TOKENS)
    assert np.array_equal(first.ids, second.ids) and np.array_equal(first.offsets, second.offsets)
    with pytest.raises(InputError, match="another file, vocabulary"):
        cache_rows(sources[1], tmp_path, encode, [*TOKENS, "新"])
    assert not any("第" in text for (_, text) in sources[1].training_documents())
    index, ids, offsets = (tmp_path / f"{sources[1].name}.{end}" for end in ("json", "ids", "npy"))
    for path, content, error in (
        (index, b"{", CorruptFileError),
        (ids, ids.read_bytes()[:-2], InputError),
        (offsets, offsets.read_bytes()[:90], InputError),
    ):
        whole = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(error, match=path.name):
            cache_rows(sources[1], tmp_path, fail, TOKENS)
        path.write_bytes(whole)


def test_a_killed_cache_is_made_again(sources, encode, tmp_path):
    def stop(texts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_rows(sources[1], tmp_path, stop, TOKENS)
    assert len(cache_rows(sources[1], tmp_path, encode, TOKENS)) > 100


def test_an_epoch_deals_each_file_as_often_as_its_weight(files):
    mixture = Mixture(files, 512)
    counts, kept = [Counter() for _ in files], 0
    for length, picks in mixture._epoch_plan(0):
        assert len(picks) == 512 // length
        for file, row in picks:
            counts[file][row] += 1
            assert len(files[file][row]) + 3 <= length
            kept += 1
    wanted = sum(round(len(file) * file.weight) for file in files)
    assert wanted - sum(512 // b for b in BUCKETS) < kept <= wanted
    assert set(counts[0].values()) <= {1, 2} and np.mean(list(counts[0].values())) > 1.8
    assert set(counts[1].values()) == {1} and len(counts[1]) <= len(files[1]) / 2 + 1


def test_the_order_depends_on_the_step_alone(files):
    straight, back = Mixture(files, 512, seed=3), Mixture(files, 512, seed=3)
    steps = list(range(0, 3 * straight.batches_per_epoch, 5))
    forward = [np.concatenate(straight.rows(step)[1]).tolist() for step in steps]
    backward = [np.concatenate(back.rows(step)[1]).tolist() for step in reversed(steps)]
    assert forward == backward[::-1]
    assert forward != [np.concatenate(Mixture(files, 512, seed=4).rows(step)[1]).tolist() for step in steps]
    with pytest.raises(InputError, match="less than one batch"):
        Mixture([files[1]], 1 << 20)


def unbatch(batch, kind):
    """Row numbers of an objective, and for each its (position, target) pairs."""
    length = batch["token_ids"].shape[1]
    rows = {}
    for position, target, weight, objective in zip(
        *(batch[name] for name in ("positions", "targets", "weights", "objectives")), strict=True
    ):
        if weight and OBJECTIVES[objective] == kind:
            rows.setdefault(position // length, []).append((position % length, target))
    return rows


@pytest.fixture(scope="module")
def batch(files, tokenizer):
    rows = [files[1][i] for i in range(60)] + [files[0][i] for i in range(len(files[0])) if len(files[0][i]) < 62]
    mix = Mix((0.4, 0.3, 0.3), predicted=1.0, unpunctuated=0)
    return rows, make_batch(rows, 64, mix, Specials.of(tokenizer), np.random.default_rng(2))


def test_masked_rows(batch, tokenizer):
    rows, arrays = batch
    seen = Counter()
    for b, pairs in unbatch(arrays, "mlm").items():
        ids, original = arrays["token_ids"][b], np.array([2, *rows[b], 3])
        real = len(original)
        assert (arrays["rank"][b, :real] == 0).all() and (arrays["rank"][b, real:] == PADDING).all()
        ordinary = (original >= 5).sum()
        assert len(pairs) == max(1, round(0.25 * ordinary))
        for position, target in pairs:
            assert target == original[position] >= 5
            seen["mask" if ids[position] == 4 else "kept" if ids[position] == target else "random"] += 1
        untouched = np.setdiff1d(np.arange(real), [position for position, _ in pairs])
        assert (ids[untouched] == original[untouched]).all()
        separator = np.flatnonzero(original == 3)[0]
        assert (arrays["segment_ids"][b, :real] == (np.arange(real) > separator)).all()
    total = sum(seen.values())
    assert total > 200 and 0.72 < seen["mask"] / total < 0.88
    assert 0.04 < seen["random"] / total < 0.16 and 0.04 < seen["kept"] / total < 0.2


def test_some_masked_rows_lose_their_final_punctuation(tokenizer):
    row = np.array(tokenizer.encode(LINES[3])[0][1:-1])
    mix, specials, rng = Mix((1, 0, 0), unpunctuated=0.5), Specials.of(tokenizer), np.random.default_rng(0)
    lengths = Counter((make_batch([row] * 64, 32, mix, specials, rng)["rank"] == 0).sum(1).tolist())
    assert set(lengths) == {len(row) + 1, len(row) + 2} and min(lengths.values()) > 15


def test_left_to_right_rows(batch):
    rows, arrays = batch
    found = unbatch(arrays, "lm")
    assert len(found) > 10
    for b, pairs in found.items():
        ids = [2, *rows[b], 3]
        assert pairs == list(enumerate(ids[1:])) and not arrays["segment_ids"][b].any()
        assert arrays["rank"][b, : len(ids)].tolist() == list(range(len(ids)))


def test_unilm_rows(batch):
    rows, arrays = batch
    found = unbatch(arrays, "unilm")
    assert len(found) > 10
    for b, pairs in found.items():
        segments, ids = arrays["segment_ids"][b], arrays["token_ids"][b]
        real = ids != 0
        assert (arrays["rank"][b][real] == np.cumsum(segments)[real]).all()  # the rule of bert4x.masks
        source = np.flatnonzero(segments == 0)
        source = source[real[source]]
        assert ids[source[-1]] == 3 and 2 < len(source) < real.sum()
        assert pairs == [(i, ids[i + 1]) for i in range(source[-1], real.sum() - 1)]
        whole = [i for i in ids[real] if i > 3]
        assert whole == [i for i in rows[b] if i > 3]  # nothing lost at the split
        if 3 in rows[b]:
            assert len(source) == list(rows[b]).index(3) + 2  # a title is the source of its poem


def test_predictions_have_a_fixed_number_and_masked_ones_come_first(batch, tokenizer):
    rows, arrays = batch
    few = make_batch(
        rows, 64, Mix((0.4, 0.3, 0.3), predicted=0.2, unpunctuated=0), Specials.of(tokenizer), np.random.default_rng(2)
    )
    assert len(few["targets"]) == round(0.2 * len(rows) * 64) and few["weights"].all()
    masked = (arrays["objectives"] == 0) & (arrays["weights"] > 0)
    assert ((few["objectives"] == 0) & (few["weights"] > 0)).sum() == masked.sum()
    assert set(few["objectives"]) == {0, 1, 2}


def make_trainer(files, tokenizer, architecture="bert", **options):
    from bert4x.training.pretraining import Pretrainer

    config = bert4x.TransformerConfig(architecture, len(TOKENS), 32, 2, 2, 64, pad_token_id=0, initializer_range=0.1)
    return Pretrainer(config, Mixture(files, 512), Specials.of(tokenizer), Mix(), jit=False, **options)


@pytest.mark.parametrize("architecture", ["bert", "albert"])
def test_one_graph_is_all_three_applications(files, tokenizer, tmp_path, architecture):
    trainer = make_trainer(files, tokenizer, architecture)
    trainer.model.tokenizer = tokenizer
    trainer.train_step(0.3)
    bert4x.save(trainer.model, tmp_path)
    for number, (kind, application) in enumerate(zip(OBJECTIVES, ("encoder", "lm", "unilm"), strict=True)):
        trainer.mix = Mix(tuple(np.eye(3)[number]), predicted=1.0)
        batch = trainer.batch(0)
        fused = trainer.model.predict_on_batch([batch[k] for k in ("token_ids", "segment_ids", "rank", "positions")])
        model = bert4x.load(tmp_path, application=application, with_mlm=True)
        logits = model.predict_on_batch([batch["token_ids"], batch["segment_ids"]])
        expected = logits.reshape(-1, logits.shape[-1])[batch["positions"]]
        real = batch["weights"] > 0
        assert real.sum() > 50
        np.testing.assert_allclose(fused[real], expected[real], atol=2e-5, err_msg=kind)


def test_a_resumed_run_equals_an_uninterrupted_one(files, tokenizer, tmp_path):
    whole = make_trainer(files[1:], tokenizer, seed=1)
    losses = [whole.train_step(i / 6) for i in range(6)]

    first = make_trainer(files[1:], tokenizer, seed=1)
    again = [first.train_step(i / 6) for i in range(3)]
    first.seconds = 12.5
    first.save(tmp_path)
    second = make_trainer(files[1:], tokenizer, seed=1)
    second.resume(tmp_path)
    assert second.step == 3 and second.seconds == 12.5
    again += [second.train_step(i / 6) for i in range(3, 6)]

    assert again == losses
    for ours, theirs in zip(second.model.variables, whole.model.variables, strict=True):
        assert np.array_equal(np.asarray(ours), np.asarray(theirs)), ours.path


def test_losses_in_float16_are_scaled(files, tokenizer, tmp_path):
    trainer = make_trainer(files, tokenizer, dtype="mixed_float16")
    assert isinstance(trainer.optimizer, keras.optimizers.LossScaleOptimizer)
    assert np.isfinite([trainer.train_step(0.1) for _ in range(2)]).all()
    trainer.save(tmp_path)
    make_trainer(files, tokenizer, dtype="mixed_float16").resume(tmp_path)


def test_a_file_that_is_no_utf8(tmp_path):
    (tmp_path / "a.txt").write_bytes("今天天气很好。".encode("gbk"))
    with pytest.raises(DataError, match=r"a\.txt cannot be read.*expected text in UTF-8"):
        list(CorpusFile(tmp_path / "a.txt").documents())
    (tmp_path / "a.txt").write_bytes("\ufeff今天。\r\n\r\n明天。".encode())
    assert list(CorpusFile(tmp_path / "a.txt").documents()) == [["今天。"], ["明天。"]]


def test_resuming_from_nothing_or_another_model_is_refused(files, tokenizer, tmp_path):
    trainer = make_trainer(files, tokenizer)
    with pytest.raises(CheckpointNotFoundError, match="nothing to resume"):
        trainer.resume(tmp_path)
    trainer.save(tmp_path)
    trainer.model.config = trainer.model.config.replace(num_hidden_layers=3)
    with pytest.raises(ConfigError, match="num_hidden_layers"):
        trainer.resume(tmp_path)
    path = tmp_path / "training.safetensors"
    state = json.dumps({"step": 1, "seconds": 0.5, "config": trainer.model.config.to_dict()})
    for damaged in ("[]", "{", '{"step": "x", "seconds": 1, "config": {}}', state):
        save_file({"model/a": np.zeros(1)}, path, metadata={"state": damaged})
        with pytest.raises(CorruptFileError, match=r"training\.safetensors"):
            trainer.resume(tmp_path)
    path.write_bytes(b"nonsense")
    with pytest.raises(CorruptFileError, match="no state of training"):
        trainer.resume(tmp_path)


def test_architectures_without_masked_tokens_are_refused(files, tokenizer):
    with pytest.raises(ConfigError, match=r"cannot pretrain 'gpt2'.*expected a BERT or an ALBERT"):
        make_trainer(files, tokenizer, "gpt2")


def test_it_learns(files, tokenizer):
    trainer = make_trainer(files, tokenizer, peak=5e-3)
    losses = [trainer.train_step(0.3) for _ in range(60)]
    frequencies = trainer.mixture.token_counts(len(TOKENS))[5:]
    entropy = -np.sum(frequencies / frequencies.sum() * np.log(frequencies / frequencies.sum()))
    assert np.mean(losses[-5:]) < 0.6 * entropy  # well below what knowing the frequencies alone could give


def test_vocabulary_by_frequency(sources, tmp_path):
    base = tmp_path / "vocab.txt"
    base.write_text("\n".join([*TOKENS[:5], *"abc", "##a", "abc", "##bc", "cab", "春"]) + "\n", encoding="utf-8")
    text = tmp_path / "text.txt"
    text.write_text("Abc abc cab 霜 é □\n" * 200, encoding="utf-8")
    vocabulary = corpus_vocabulary([CorpusFile(text), *sources], base, 109 + len(TOKENS) - 5 + 3)
    assert vocabulary[:5] == TOKENS[:5] and len(vocabulary) == len(set(vocabulary))
    assert {"霜", "abc", "cab", "a", "##z", "~"} <= set(vocabulary)  # 霜 is not in the large vocabulary
    assert not {"□", "é", "##bc"} & set(vocabulary) and set(LINES[0]) <= set(vocabulary)
    assert trim_vocabulary({"甲": 3, "乙": 2, "丙": 1}, {}, len(vocabulary))[-3:] == ["丙", "乙", "甲"]
    assert count_characters(["Aa　é床"]) == Counter({"a": 2, "床": 1})


def test_words():
    pytest.importorskip("jieba", reason="jieba is not installed")
    tokens = ["[CLS]", "我", "们", "在", "北", "京", "大", "学", "play", "##ing", "new", "york", "a", "。", "[SEP]"]
    words = Words(tokens)
    assert words(range(15)).tolist() == [1, 2, 2, 3, 4, 4, 4, 4, 5, 5, 6, 7, 8, 9, 10]
    assert words([]).tolist() == []
    words.cut = None  # without jieba, pieces of words
    assert words([0, 1, 2, 8, 9, 10]).tolist() == [1, 2, 3, 4, 4, 5]


def test_whole_words_are_masked(tokenizer):
    s, rng = Specials.of(tokenizer), np.random.default_rng(0)
    ids = np.arange(s.first_ordinary, s.first_ordinary + 12)
    words = np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4, 4])
    sizes = set()
    for _ in range(50):
        _, chosen = mask_tokens(ids, ids > s.first_ordinary, 0.5, s, rng, words)
        assert 0 not in chosen  # not allowed, though its word may be chosen
        taken = np.isin(words, words[chosen]) & (ids > s.first_ordinary)
        assert np.flatnonzero(taken).tolist() == chosen.tolist()
        sizes.add(len(chosen))
    assert max(sizes) <= 6 and len(sizes) > 2
    rows = [np.arange(s.first_ordinary, s.first_ordinary + 20)] * 8
    mix = Mix((1.0, 0.0, 0.0), words=lambda ids: np.arange(len(ids)) // 2)
    batch = make_batch(rows, 32, mix, s, np.random.default_rng(0))
    masked = np.zeros(8 * 32, bool)
    masked[batch["positions"][batch["weights"] > 0]] = True
    pairs = masked.reshape(8, 16, 2)[:, 1:10]  # the words that have no special token
    assert (pairs[..., 0] == pairs[..., 1]).all() and 8 < pairs[..., 0].sum() < 30


@pytest.mark.sweep("runs of recipes")
def test_the_recipe_trains_resumes_and_evaluates(sources, tmp_path, capsys):
    recipe = load_recipe("pretraining")

    def run(*options):
        data = ["--data", f"{sources[0].path}:2", str(sources[1].path)]
        recipe.main(parse(recipe.Arguments, argv=[*data, *map(str, options)]))
        return capsys.readouterr().out

    out = tmp_path / "out"
    sizes = ["--layers", 1, "--hidden", 16, "--heads", 2, "--batch-tokens", 512, "--output", out, "--whole-words"]
    run(*sizes, "--max-steps", 3)
    first = (out / "float32/model.safetensors").read_bytes()
    with pytest.raises(RunError, match="holds a run"):
        run(*sizes, "--max-steps", 50)
    assert "step 50, 98.0%: loss" in run(*sizes, "--max-steps", 50, "--resume", "auto")
    assert (out / "float32/model.safetensors").read_bytes() != first
    assert [record["update"] for record in read_metrics(out / "metrics.jsonl")] == list(range(1, 51))
    run("--model", out / "float16", "--max-steps", 1, "--batch-tokens", 512, "--output", tmp_path / "more")
    (gone_on,) = read_metrics(tmp_path / "more/metrics.jsonl")
    losses = [record["loss"] for record in read_metrics(out / "metrics.jsonl")]
    assert abs(gone_on["loss"] - losses[-1]) < abs(gone_on["loss"] - losses[0])
    table = run("--evaluate", out / "float16").splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| prose", "| poems"]
    assert float(table[2].split(" | ")[3].rstrip(" |")) < 1000  # of 8000 tokens: it knows which ones the text uses
    with pytest.raises(RunError, match="three shares"):
        run("--objectives", 0.5, 0.6, "--output", tmp_path / "none")
