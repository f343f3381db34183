"""Scores, by hand on small cases and against seqeval, rouge-chinese and sacrebleu on random ones."""

import random
from itertools import combinations

import pytest

from bert4x import Tokenizer
from bert4x.errors import InputError
from bert4x.metrics import (
    Counts,
    Entity,
    bleu,
    count,
    count_by_label,
    count_entities,
    count_triples,
    find_entities,
    rouge,
)
from bert4x.metrics.rouge import lcs_length
from bert4x.metrics.tokens import TOKENIZERS

CHARACTERS = "今天天气很好我们去公园，。！“”—…ab1 2.,-&<>'\"()３Ａ　㐀䶶龥龻豈☆\U00020000‐ℓ⸀㆏"
TRIPLES = [("《忘了所有》", "歌手", "王杰"), ("《忘了所有》", "作词", "王杰"), ("王杰", "国籍", "中国")]


def texts(seed, number=60, longest=30, alphabet=CHARACTERS):
    draw = random.Random(seed)
    return ["".join(draw.choices(alphabet, k=draw.randint(1, longest))) + "好" for _ in range(number)]


def altered(text, seed, alphabet=CHARACTERS):
    """A text that has something in common with the text."""
    draw = random.Random(seed)
    return "".join(c if draw.random() < 0.7 else draw.choice(alphabet) for c in text if draw.random() < 0.9) + "天"


# --- counts and triples


def test_counts_over_a_corpus():
    predicted = [TRIPLES[:2], [TRIPLES[2], TRIPLES[2]], []]
    gold = [[TRIPLES[0]], [TRIPLES[2]], [TRIPLES[1]]]
    counts = count_triples(predicted, gold)
    assert counts == Counts(correct=2, predicted=3, gold=3)
    assert (counts.precision, counts.recall, counts.f1) == (2 / 3, 2 / 3, 2 / 3)
    assert Counts(1, 2, 4) + Counts(2, 2, 2) == Counts(3, 4, 6)
    assert (Counts(1, 2, 4).precision, Counts(1, 2, 4).recall, Counts(1, 2, 4).f1) == (0.5, 0.25, 1 / 3)


@pytest.mark.parametrize("counts", [Counts(0, 0, 5), Counts(0, 5, 0), Counts(0, 0, 0)])
def test_nothing_found_or_nothing_to_find_is_zero(counts):
    assert (counts.precision, counts.recall, counts.f1) == (0, 0, 0)


def test_triples_are_compared_by_their_tokens():
    predicted, gold = [[("NBA  Live", "平台", "PC")]], [[("nba live", "平台", "pc")]]
    assert count_triples(predicted, gold).correct == 0
    assert count_triples(predicted, gold, tokenize=lambda text: text.lower().split()).correct == 1
    both = [[("A", "p", "b"), ("a", "p", "B"), ("a", "q", "b")]]
    assert count_triples(both, [[]], tokenize=str.lower) == Counts(0, 2, 0)  # the first two are one
    assert count_triples([[("ab", "p", "c")]], [[("a", "p", "bc")]], tokenize=list).correct == 0


def test_triples_are_compared_by_the_tokens_of_a_tokenizer():
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "nba", "live", "杰"]
    tokenizer = Tokenizer({token: index for index, token in enumerate(tokens)}, do_lower_case=True)
    gold = [[("NBA Live", "歌手", "王杰")]]
    assert count_triples([[("nba  live", "歌手", "王 杰")]], gold, tokenizer.tokenize).correct == 1
    for other in (("nba", "歌手", "王杰"), ("nba live", "歌", "王杰"), ("nba live", "歌手", "张杰")):  # 王, 张: unknown
        assert count_triples([[other]], gold, tokenizer.tokenize).correct == 0


def test_triples_from_json_are_lists():
    assert count_triples([[["s", "p", "o"]]], [[("s", "p", "o")]]) == Counts(1, 1, 1)


def test_counts_by_label_add_up():
    draw = random.Random(0)
    sets = [[{(draw.choice("abc"), draw.randint(0, 3)) for _ in range(4)} for _ in range(20)] for _ in range(2)]
    by_label = count_by_label(*sets)
    assert list(by_label) == ["a", "b", "c"]
    assert sum(by_label.values(), Counts()) == count(*sets)
    only = [[{member for member in members if member[0] == "b"} for members in side] for side in sets]
    assert by_label["b"] == count(*only)
    assert list(count_by_label([TRIPLES], [[]], label=lambda triple: triple[1])) == sorted(t[1] for t in TRIPLES)


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        ([], "predictions for 0 texts, of which there are 1"),
        ([["abc"]], r"predicted\[0\] holds 'abc'; expected \(subject, predicate, object\)"),
        ([[("s", "p")]], "three strings"),
        ([[("s", "p", {"@value": "o"})]], "three strings"),
    ],
)
def test_bad_triples(predicted, message):
    with pytest.raises(InputError, match=message):
        count_triples(predicted, [[]])


# --- entities


def test_entities_of_each_scheme():
    tags = ["B-PER", "I-PER", "O", "I-LOC", "B-LOC", "E-LOC", "S-ORG", "E-ORG"]
    named = [("PER", 0, 2), ("LOC", 3, 4), ("LOC", 4, 6), ("ORG", 6, 7), ("ORG", 7, 8)]
    assert find_entities(tags) == [Entity(*entity) for entity in named]
    assert find_entities(tags, "BIOES") == [Entity("LOC", 4, 6), Entity("ORG", 6, 7)]
    assert find_entities(["I-LOC", "B-LOC", "I-LOC", "I-PER"], "BIO") == [Entity("LOC", 1, 3)]
    assert find_entities([]) == []
    assert find_entities(["B", "M", "E", "S"], "BIOES") == [Entity("_", 0, 3), Entity("_", 3, 4)]  # BMES
    assert find_entities(["B-X", "L-X", "U-X"], "BIOES") == [Entity("X", 0, 2), Entity("X", 2, 3)]  # BILOU


def taggings(seed, places, length=12, number=300):
    draw = random.Random(seed)
    tags = ["O", *(f"{place}-{label}" for place in places for label in ("PER", "LOC-2"))]
    return [draw.choices(tags, k=length) for _ in range(number)]


@pytest.mark.parametrize(
    ("places", "scheme", "theirs"),
    [("BI", None, None), ("BIES", None, None), ("BI", "BIO", "IOB2"), ("BIES", "BIOES", "IOBES")],
)
@pytest.mark.filterwarnings("ignore")  # scikit-learn's, of which seqeval makes use
def test_entity_scores_are_those_of_seqeval(places, scheme, theirs):
    metrics = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    schemes = pytest.importorskip("seqeval.scheme", reason="seqeval is not installed")
    strict = {"mode": "strict", "scheme": getattr(schemes, theirs)} if theirs else {}
    gold, noise = taggings(1, places), taggings(2, places)
    predicted = [
        [a if i % 3 else b for i, (a, b) in enumerate(zip(*pair, strict=True))]
        for pair in zip(gold, noise, strict=True)
    ]
    counts = count_entities(predicted, gold, scheme)
    for name in ("precision", "recall", "f1"):
        score = getattr(metrics, f"{name}_score")(gold, predicted, **strict)
        assert getattr(counts, name) == pytest.approx(score, abs=1e-12)
    assert 0 < counts.correct < counts.predicted
    found, true = ([find_entities(tags, scheme) for tags in side] for side in (predicted, gold))
    report = metrics.classification_report(gold, predicted, output_dict=True, digits=9, **strict)
    for label, ours in count_by_label(found, true).items():
        assert (ours.f1, ours.gold) == (pytest.approx(report[label]["f1-score"]), report[label]["support"])
    if theirs is None:
        get_entities = pytest.importorskip("seqeval.metrics.sequence_labeling").get_entities
        for tags in gold:
            assert [(e.label, e.start, e.end - 1) for e in find_entities(tags)] == get_entities(tags)


@pytest.mark.parametrize(
    ("tags", "scheme", "message"),
    [
        (["O", "X-PER"], None, "tag 1 is 'X-PER'; expected O or B-LABEL or I-LABEL or E-LABEL or S-LABEL"),
        (["B_PER"], None, "tag 0 is 'B_PER'"),
        (["O-PER"], None, "tag 0 is 'O-PER'"),
        ([""], None, "tag 0 is ''"),
        ([3], None, "tag 0 is 3"),
        (["S-PER"], "BIO", "expected O or B-LABEL or I-LABEL$"),
        (["O"], "BIOE", "no scheme 'BIOE'; did you mean 'BIO'"),
    ],
)
def test_bad_tags(tags, scheme, message):
    with pytest.raises(InputError, match=message):
        find_entities(tags, scheme)


def test_taggings_of_other_lengths():
    with pytest.raises(InputError, match="text 1 has 1 predicted and 2 gold tags"):
        count_entities([["O"], ["O"]], [["O"], ["O", "O"]])


# --- ROUGE


def test_rouge_by_hand():
    scores = rouge(["今天天气好"], ["今天气很好"])
    assert scores["rouge-1"] == (4 / 5, 1, pytest.approx(8 / 9))  # sets: 今 天 气 好 of 今 天 气 很 好
    assert scores["rouge-2"] == (0.5, 0.5, 0.5)  # 今天 天气, of 今天 天天 天气 气好 and 今天 天气 气很 很好
    assert scores["rouge-l"] == (4 / 5, 4 / 5, pytest.approx(4 / 5))  # 今 天 气 好
    assert rouge(["天天"], ["天天天"], exclusive=False)["rouge-1"] == (2 / 3, 1, 0.8)


def test_empty_texts_score_zero_and_count():
    assert set(rouge([""], ["今天"]).values()) == set(rouge(["今天"], [" "]).values()) == {(0, 0, 0)}
    assert rouge(["", "今天"], ["今天", "今天"])["rouge-l"] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("exclusive", [True, False])
def test_rouge_is_that_of_rouge_chinese(exclusive):
    library = pytest.importorskip("rouge_chinese", reason="rouge-chinese is not installed")
    references = texts(3)
    predictions = [altered(text, seed) for seed, text in enumerate(references)]
    spaced = [[" ".join(TOKENIZERS["char"](text)) for text in side] for side in (predictions, references)]
    expected = library.Rouge(exclusive=exclusive).get_scores(*spaced, avg=True)
    for name, score in rouge(predictions, references, exclusive=exclusive).items():
        theirs = expected[name]
        assert score == pytest.approx((theirs["r"], theirs["p"], theirs["f"]), abs=1e-8)  # it adds 1e-8 in its F1
        assert 0 < score.f1 < 1


def test_length_of_the_common_subsequence():
    draw = random.Random(4)
    for _ in range(200):
        first, second = ("".join(draw.choices("abc", k=draw.randint(0, 8))) for _ in range(2))
        kept = {"".join(kept) for n in range(len(first) + 1) for kept in combinations(first, n)}
        others = {"".join(kept) for n in range(len(second) + 1) for kept in combinations(second, n)}
        assert lcs_length(first, second) == max(map(len, kept & others))


# --- BLEU


def test_bleu_by_hand():
    score = bleu(["今天天气很好"], ["今天天气很好"])
    assert score.score == pytest.approx(100)
    assert score[1:] == ((100, 100, 100, 100), 1, 6, 6)
    score = bleu(["今天天气"], ["今天天气很好"], tokenize="char")
    assert score.score == pytest.approx(100 * 2.718281828459045**-0.5)
    assert bleu(["今天"], ["今天"]).score == 0  # no run of three
    assert bleu(["今天"], ["今天"], effective_order=True).score == pytest.approx(100)
    assert bleu([""], ["今天"]) == (0, (0, 0, 0, 0), 0, 0, 2)


@pytest.mark.parametrize("tokenize", ["char", "zh", "13a", "none"])
@pytest.mark.parametrize(
    "options", [{}, {"smooth": "none"}, {"smooth": "floor"}, {"smooth": "add-k", "smooth_value": 0.5}, {"max_order": 2}]
)
def test_bleu_is_that_of_sacrebleu(tokenize, options):
    sacrebleu = pytest.importorskip("sacrebleu", reason="sacrebleu is not installed")
    first = texts(5)
    second, predictions = ([altered(text, seed + k) for seed, text in enumerate(first)] for k in (0, 1000))
    names = {"smooth": "smooth_method", "max_order": "max_ngram_order"}
    theirs = {names.get(name, name): value for name, value in options.items()}
    for lowercase in (False, True):
        metric = sacrebleu.BLEU(tokenize=tokenize, lowercase=lowercase, **theirs)
        for streams in ([first], [first, second]):
            expected = metric.corpus_score(predictions, streams)
            score = bleu(
                predictions, list(zip(*streams, strict=True)), tokenize=tokenize, lowercase=lowercase, **options
            )
            assert score.score == pytest.approx(expected.score, abs=1e-9)
            assert score.precisions == pytest.approx(expected.precisions)
            assert score[2:] == (pytest.approx(expected.bp), expected.sys_len, expected.ref_len)
    sentence = sacrebleu.BLEU(tokenize=tokenize, effective_order=True, **theirs)
    for prediction, reference in zip(predictions, first, strict=True):
        score = bleu([prediction], [reference], tokenize=tokenize, effective_order=True, **options)
        assert score.score == pytest.approx(sentence.sentence_score(prediction, [reference]).score, abs=1e-9)


@pytest.mark.parametrize("name", ["char", "zh", "13a"])
def test_tokens_are_those_of_sacrebleu(name):
    bleu_module = pytest.importorskip("sacrebleu.metrics.bleu", reason="sacrebleu is not installed")
    tokenizer = bleu_module._get_tokenizer(name)()
    code_points = [chr(c) for c in [*range(0x3400), *range(0x9F00, 0xA000), *range(0xE000, 0x10000), 0x20000, 0x2F800]]
    samples = ["".join(code_points[i : i + 50]) for i in range(0, len(code_points), 50)]
    samples += [
        *texts(6, 300),
        *texts(7, 300, alphabet="ab12.,-;&lt;quoamp<skipped>\n "),
        "3.14-5 a.,5 -\nx &amp;lt;",
        "",
    ]
    for text in samples:
        assert TOKENIZERS[name](text) == tokenizer(text.rstrip()).split(), repr(text)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rouge("今天", "今天"), "predictions is a single string"),
        (lambda: rouge([], []), "0 predictions for 0 references"),
        (lambda: bleu(["a"], ["a", "b"]), "1 predictions for 2 references"),
        (lambda: rouge([None], ["a"]), r"predictions\[0\] is None"),
        (lambda: rouge(["a"], [["a"]]), r"references\[0\] is \['a'\]; expected a string"),
        (lambda: bleu(["a"], [[]]), r"references\[0\] is \[\]; expected a string or several"),
        (lambda: bleu(["a"], ["a"], tokenize="cahr"), "no tokenization 'cahr'; did you mean 'char'"),
        (lambda: bleu(["a"], ["a"], smooth="flor"), "no smoothing 'flor'; did you mean 'floor'"),
        (lambda: bleu(["a"], ["a"], max_order=0), "max_order is 0"),
    ],
)
def test_bad_texts(call, message):
    with pytest.raises(InputError, match=message):
        call()
