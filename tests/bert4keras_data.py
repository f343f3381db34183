"""Tiny checkpoints and data where bert4keras' example scripts look for them, drawn by rule from NumPy's generator."""

import json
import zlib
from pathlib import Path

import numpy as np
from make_checkpoints import config_of

from bert4x.checkpoints.formats.tf1_bundle import write_tf1
from bert4x.checkpoints.tables import variables
from bert4x.checkpoints.tensors import from_array
from bert4x.checkpoints.write import theirs
from bert4x.families import family_of

CHARACTERS = (
    "的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要她出也得里后自以会家可下而过天去能对小多然于心学么之都好"
    "看起发当没成只如事把还用第样道想作种开美总从无情己面最女但现前些所同日手又行意动方期它头经长儿回位分爱老因很给名法间斯知"
    "世什两次使身者被高已亲其进此话常与活正感语言模型科学技术力机器习京法首都酒店房间服务图片书糟糕质量便宜苹果多少钱斤"
)
WORDS = [
    "welcome",
    "to",
    "be",
    "##i",
    "##jing",
    "a",
    "train",
    "on",
    "the",
    "of",
    "in",
    "man",
    "dog",
    "two",
    "is",
    "red",
]
SPECIAL = ["[PAD]", *(f"[unused{i}]" for i in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
BERTS = (
    "chinese_L-12_H-768_A-12",
    "chinese_roberta_wwm_ext_L-12_H-768_A-12",
    "chinese_wwm_L-12_H-768_A-12",
    "chinese_simbert_L-12_H-768_A-12",
    "uncased_L-12_H-768_A-12",
    "uer/mixed_corpus_bert_base_model",
)


def vocabulary() -> list[str]:
    """Tokens of a BERT: [UNK] is 100 as in Google's, and 511 is "。", at which three scripts stop."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = dict.fromkeys(
        [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *WORDS, *"，！？；：、“”", *CHARACTERS]
    )
    tokens = [token for token in tokens if token != "。" and (len(token) > 1 or not token.isupper())]
    filler = [f"[unused{i}]" for i in range(100, 700)]
    tokens += filler[: max(0, 511 - len(tokens))]
    return [*tokens[:511], "。", *tokens[511:]]


def values(shape, path: str) -> np.ndarray:
    """The value of a variable: a function of its path and shape alone."""
    generator = np.random.default_rng(zlib.crc32(path.encode()))
    drawn = generator.standard_normal(shape) * (0.2 if len(shape) > 1 else 0.1)
    return (drawn + path.endswith("gamma")).astype("float32")


def write_model(
    folder: Path, family: str, config_name: str, checkpoint_name: str, root="", drop=(), act="gelu", **sizes
) -> None:
    """A TensorFlow checkpoint in the layout whose names begin with `root`, with the names that a script has."""
    config = config_of(family, **(SIZES | sizes))
    weights = {path: from_array(path, values(shape, path)) for path, (shape, _) in variables(config).items()}
    weights = {path: tensor for path, tensor in weights.items() if not path.startswith(tuple(drop))}
    tables = [
        table for table in family_of(family).tables if table.format == "tf1" and (not table.fits or table.fits(config))
    ]
    table = next(table for table in tables if any(entry.theirs.startswith(root) for entry in table.entries(1)))
    folder.mkdir(parents=True, exist_ok=True)
    write_tf1(folder / checkpoint_name, list(theirs(table, config, weights, 0, 1)))
    written = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "embedding_size": config.embedding_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "hidden_act": act,
        "max_position_embeddings": config.max_position,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    (folder / config_name).write_text(json.dumps(written))


def make_models(root: Path) -> None:
    """Every checkpoint that a script names, under `root`/kg/bert."""
    tokens = vocabulary()
    home = root / "kg/bert"

    def bert(name, family="bert", config_name="bert_config.json", checkpoint_name="bert_model.ckpt", **options):
        write_model(
            home / name, family, config_name, checkpoint_name, vocab_size=len(tokens), max_position=512, **options
        )
        (home / name / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")

    for name in BERTS:
        bert(name)
    bert("albert_small_zh_google", "albert", "albert_config.json", "albert_model.ckpt")
    bert(
        "chinese_nezha_gpt_L-12_H-768_A-12",
        config_name="config.json",
        checkpoint_name="gpt.ckpt",
        drop=["Embedding-Segment"],
    )
    bert("gpt2_ml", "gpt2_ml", "config.json", "model.ckpt-100000")
    cpm = home / "CPM_LM_2.6B_TF"
    cpm.mkdir()
    make_pieces(cpm / "chinese_vocab.model", {"pad_id": 5, "user_defined_symbols": ["<cls>", "<sep>", "<mask>"]})
    size = pieces(cpm / "chinese_vocab.model")
    write_model(
        cpm, "gpt2", "config.json", "model.ckpt", root="gpt/", act="gelu_tanh", vocab_size=size, max_position=512
    )
    mt5 = home / "mt5"
    mt5.mkdir()
    make_pieces(mt5 / "sentencepiece_cn.model", {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1})
    size = pieces(mt5 / "sentencepiece_cn.model")
    (mt5 / "sentencepiece_cn_keep_tokens.json").write_text(json.dumps(list(range(size))))
    sizes = {"vocab_size": size + 2, "max_position": 512, "tied_output": False, "as_mt5": True, "gated": True}
    acts = ["gelu", "linear"]
    write_model(mt5 / "mt5_base", "mt5.1.1", "mt5_base_config.json", "model.ckpt-1000000", act=acts, **sizes)


def make_small(folder: Path) -> None:
    """Checkpoints of the patterns of scripts (bert4keras_patterns.py), all with one small vocabulary."""
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰馀成岁律吕调",
    ]
    sizes = {"vocab_size": len(tokens), "max_position": 32, "hidden_size": 24, "intermediate_size": 40}
    kinds = {
        "bert": ("bert", {}),
        "unsegmented": ("bert", {"drop": ["Embedding-Segment"]}),
        "albert": ("albert", {"embedding_size": 12}),
        "gpt2": ("gpt2", {"root": "gpt/", "act": "gelu_tanh"}),
        "gpt2_ml": ("gpt2_ml", {}),
    }
    for name, (family, options) in kinds.items():
        write_model(folder / name, family, "config.json", "model.ckpt", **sizes, **options)
        (folder / name / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")


def make_pieces(path: Path, options: dict, size: int = 320) -> None:
    """A SentencePiece model of our characters."""
    import io

    import sentencepiece

    written = io.BytesIO()
    rng = np.random.default_rng(0)
    lines = ["".join(rng.choice(list(CHARACTERS + "，。"), 12)) for _ in range(200)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        vocab_size=size,
        model_type="unigram",
        minloglevel=2,
        hard_vocab_limit=False,
        character_coverage=1.0,
        **options,
    )
    path.write_bytes(written.getvalue())


def pieces(path: Path) -> int:
    """How many pieces a SentencePiece model has."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(path)).get_piece_size()


class Texts:
    """Sentences drawn from a seed."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def __call__(self, least=4, most=20) -> str:
        return "".join(self.rng.choice(list(CHARACTERS), self.rng.integers(least, most)))

    def label(self, classes: int) -> int:
        return int(self.rng.integers(classes))


def make_data(root: Path, beside: Path, rows: int = 24) -> None:
    """Every file of data that a script reads: `root` stands for /root, `beside` is the scripts' own folder."""
    text = Texts(1)

    def write(path, content, encoding="utf-8"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding=encoding)

    def lines(path, row, count=rows):
        write(path, "".join(row(i) + "\n" for i in range(count)))

    def dumped(value):
        return json.dumps(value, ensure_ascii=False)

    for part in ("train", "valid", "test"):
        count = 2400 if part == "train" else 8  # the semi-supervised script takes a hundredth of it
        lines(beside / f"datasets/sentiment/sentiment.{part}.data", lambda i: f"{text()}\t{i % 2}", count)
        lines(beside / f"datasets/lcqmc/lcqmc.{part}.data", lambda i: f"{text()}\t{text()}\t{i % 2}")
    for part in ("train", "dev"):
        home = root / "CLUE-master/baselines/CLUEdataset/iflytek"
        lines(home / f"{part}.json", lambda i: dumped({"id": i, "sentence": text(), "label": text.label(119)}))
    for part in ("train", "val"):
        images = [{"id": i, "file_name": f"{i}.jpg", "coco_url": ""} for i in range(rows)]
        captions = [{"image_id": i, "caption": "a man on the red train"} for i in range(rows)]
        write(
            root / f"caption/coco/annotations/captions_{part}2014.json",
            dumped({"images": images, "annotations": captions}),
        )
    novel = "  ".join(text(8, 16) + "。" for _ in range(4 * rows))
    write(root / "金庸/a/b.txt", novel, "gbk")
    lines(root / "qipu.json", lambda i: dumped({"fen": "", "items": {}, "iccs": "h2e2h9g7b0c2b9c7" * (1 + i % 2)}))
    for name in ("WebQA", "SogouQA"):
        questions = []
        for i in range(rows):
            passage = text(12, 24)
            found = {"passage": passage, "answer": passage[2:5]}
            questions.append(
                {"id": i, "question": text(4, 8), "passages": [found, {"passage": text(12, 24), "answer": ""}]}
            )
        write(root / f"qa_datasets/{name}.json", dumped(questions))

    def triples(i):
        sentence = text(12, 24)
        return {
            "text": sentence,
            "spo_list": [{"subject": sentence[1:3], "predicate": f"p{i % 3}", "object": sentence[5:8]}],
        }

    for part in ("train", "dev"):
        lines(root / f"kg/datasets/{part}_data.json", lambda i: dumped(triples(i)), rows if part == "train" else 4)
    lines(root / "kg/datasets/all_50_schemas", lambda i: dumped({"predicate": f"p{i}"}), 3)
    for i in range(rows):
        write(root / f"thuctc/THUCNews/news/{i:02}.txt", f"{text(4, 8)}\n{text(12, 24)}")
    for part in ("train", "val", "test"):
        lines(root / f"csl/{part}.tsv", lambda i: f"{text(4, 8)}\t{text(12, 24)}", rows if part == "train" else 2)
    sums = {"original_text": "小的有2个大的有3个", "equation": "x=2+3*(1+1)", "ans": "8"}
    for part in ("train", "valid", "test"):
        lines(root / f"ape210k/{part}.ape.json", lambda i: dumped(sums), rows if part == "train" else 2)
    lines(root / "icwb2-data/training/pku_training.utf8", lambda i: "  ".join(text(1, 4) for _ in range(6)))

    def tagged():
        return "\n".join(
            f"{c} {t}"
            for c, t in zip(text(10, 11), ["O", "B-PER", "I-PER", "O", "B-LOC", "I-LOC", *"OOOO"], strict=True)
        )

    for part in ("train", "dev", "test"):
        write(root / f"ner/china-people-daily-ner-corpus/example.{part}", "\n\n".join(tagged() for _ in range(rows)))
    lines(root / "corpus/a/b/c", lambda i: dumped({"text": "".join(text() + "。" for _ in range(4))}))
