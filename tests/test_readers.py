"""Files of examples, and texts in pieces: what is read, and what is said about files that cannot be."""

import json
import lzma
import warnings
from pathlib import Path

import pytest

from bert4x.errors import DataError, InputError, TokenizerError
from bert4x.metrics.spans import Entity
from bert4x.tasks.readers import files, read_answers, read_bio, read_pairs, read_squad, read_triples, read_tsv
from bert4x.tasks.text import encode_pieces, encode_with_offsets, split_text
from bert4x.tokenizers import Tokenizer

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def write(tmp_path):
    """A file of this content, text or bytes, by name."""

    def write(content, name="data.txt"):
        path = tmp_path / name
        content = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        path.write_bytes(lzma.compress(content) if name.endswith(".xz") else content)
        return path

    return write


def triples(*rows):
    return "\n".join(
        json.dumps(
            {"text": text, "spo_list": [dict(zip(("subject", "predicate", "object"), s, strict=True)) for s in t]}
        )
        for text, t in rows
    )


def squad(passage="甲乙丙丁甲乙", answers=(("甲乙", 4),), **question):
    answers = [{"text": text, "answer_start": start} for text, start in answers]
    question = {"id": "q1", "question": "谁？", "answers": answers} | question
    return json.dumps({"data": [{"paragraphs": [{"context": passage, "qas": [question]}]}]}, ensure_ascii=False)


READERS = [
    (
        read_triples,
        triples(("甲生于乙。", [("甲", "生于", "乙")])),
        {"text": "甲生于乙。", "spo_list": [("甲", "生于", "乙")]},
    ),
    (read_tsv, "很好\t正", ("很好", "正")),
    (read_pairs, "长文\t题", ("长文", "题")),
    (read_bio, "甲 B-人\n来 O", {"text": "甲来", "entities": [Entity("人", 0, 1)]}),
    (read_squad, squad(), {"id": "q1", "question": "谁？", "passage": "甲乙丙丁甲乙", "answers": [("甲乙", 4)]}),
]
each_reader = pytest.mark.parametrize(("read", "content", "row"), READERS, ids=[r[0].__name__ for r in READERS])


class TestEveryReader:
    @each_reader
    @pytest.mark.parametrize("name", ["data.txt", "data.xz"])
    def test_reads_with_byte_order_mark_windows_line_ends_and_compression(self, write, read, content, row, name):
        for text in (content, content + "\n", "\ufeff" + content.replace("\n", "\r\n") + "\r\n\r\n"):
            assert read(write(text, name)) == [row]

    @each_reader
    @pytest.mark.parametrize("content_", ["", "\ufeff", "\n\r\n \n"])
    def test_empty(self, write, read, content, row, content_):
        with pytest.raises(DataError, match=r"data\.txt"):
            read(write(content_))

    @each_reader
    def test_no_file(self, tmp_path, read, content, row):
        with pytest.raises(DataError, match="no such file"):
            read(tmp_path / "none.txt")
        with pytest.raises(DataError, match="not a file"):
            read(tmp_path)
        with pytest.raises(DataError, match="no such file"):
            read(tmp_path / ("a" * 300))

    @each_reader
    def test_damaged(self, write, read, content, row, monkeypatch):
        path = write(content, "data.xz")
        for damaged in (path.read_bytes()[:-9], b"no xz at all"):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=r"data\.xz: damaged"):
                read(path)
        with pytest.raises(DataError, match=r"data\.txt.* no UTF-8"):
            read(write(content.encode("gb18030") if not content.isascii() else b"\xff" + content.encode()))
        monkeypatch.setattr(files, "LONGEST_LINE", 4)
        with pytest.raises(DataError, match="more than 4 bytes"):
            read(write(content))

    @each_reader
    def test_duplicate_rows_stay(self, write, read, content, row):
        if read is not read_squad:
            assert read(write(content + "\n\n" + content)) == [row, row]


class TestSurrogates:
    def test_as_escapes(self, write):
        path = write('{"text": "\\ud83d\\ude00 \\ud83d甲", "spo_list": []}\n{"text": "乙", "spo_list": []}')
        with pytest.warns(UserWarning, match="1 unpaired surrogates"):
            rows = read_triples(path)
        assert [row["text"] for row in rows] == ["😀 \ufffd甲", "乙"]

    def test_as_bytes(self, write):
        with pytest.warns(UserWarning, match="2 unpaired surrogates"):
            assert read_tsv(write("甲\udc00\t正\n\ud83d乙\t负")) == [("甲\ufffd", "正"), ("\ufffd乙", "负")]

    @pytest.mark.parametrize("spell", [lambda text: text, lambda text: text.replace("\ud83d", "\\ud83d")])
    def test_offsets_stay(self, write, spell):
        text = json.loads(squad("😀\ud83d甲乙", [("甲乙", 2)]))  # what a program may hold in memory
        with pytest.warns(UserWarning, match="1 unpaired surrogates"):
            (row,) = read_squad(write(spell(json.dumps(text, ensure_ascii=False))))
        assert row["passage"] == "😀\ufffd甲乙"
        assert row["answers"] == [("甲乙", 2)]

    def test_no_warning_without(self, write):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_squad(write(squad("😀甲乙")))


class TestTriples:
    def test_duplicate_triples_once_in_order(self, write):
        found = [("甲", "生于", "乙"), ("丙", "生于", "丁"), ("甲", "生于", "乙")]
        assert read_triples(write(triples(("甲乙丙丁", found))))[0]["spo_list"] == found[:2]

    def test_objects_with_slots(self, write):
        """As DuIE 2.0 has them; an empty slot says nothing."""
        slots = {"inArea": "内地", "@value": "12亿", "inWork": ""}
        item = {"subject": "甲", "subject_type": "影视作品", "predicate": "票房", "object": slots}
        path = write(json.dumps({"text": "甲在内地卖了12亿", "spo_list": [item]}))
        assert read_triples(path)[0]["spo_list"] == [("甲", "票房_inArea", "内地"), ("甲", "票房", "12亿")]
        ((movie,),) = (row["answers"]["影视作品"] for row in read_answers(path))
        assert {name: one[0]["text"] for name, one in movie["relations"].items()} == {
            "票房_inArea": "内地",
            "票房": "12亿",
        }

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", "no JSON"),
            ("[" * 100_000, "no JSON"),
            ("[]", "type list"),
            ('{"spo_list": []}', "'text': none; expected text"),
            ('{"text": 3, "spo_list": []}', "'text': 3; expected text"),
            ('{"text": "甲", "spo_list": "乙"}', "expected a list"),
            ('{"text": "甲", "spo_list": ["乙"]}', "'subject'"),
            ('{"text": "甲", "spo_list": [{"subject": "甲", "predicate": "生于"}]}', "'object': none"),
            (
                '{"text": "甲", "spo_list": [{"subject": "甲", "predicate": "乙", "object": {"a": "甲"}}]}',
                "'@value': none",
            ),
            (triples(("甲", [("甲", "死于", "乙")])), "unknown predicate '死于'"),
            (triples((" ", [])), "'text': an empty text"),
            (triples(("甲", [("甲", "", "乙")])), "'predicate': an empty text"),
            (triples(("甲", [("甲", "生于", "")])), "'object': an empty text"),
            ('{"text": "甲", "text": "乙", "spo_list": []}', "the key 'text' stands twice"),
        ],
    )
    def test_malformed(self, write, line, message):
        path = write(triples(("甲", [])) + "\n\n" + line)
        with pytest.raises(DataError, match=f"line 3: .*{message}"):
            read_triples(path, predicates={"生于", "作者"})


class TestTsv:
    def test_columns(self, write):
        path = write("任务\t甲\t乙\t正\n任务\t丙\t丁\t负")
        assert read_tsv(path) == [("乙", "正"), ("丁", "负")]
        assert read_tsv(path, texts=2) == [("甲", "乙", "正"), ("丙", "丁", "负")]
        assert read_tsv(path, label="first")[0] == ("甲", "任务")
        assert read_tsv(path, texts=2, header=True) == [("丙", "丁", "负")]
        assert read_pairs(path) == [("乙", "正"), ("丁", "负")]

    def test_several_labels(self, write):
        path = write("甲\t科技, 体育,科技\n乙\t")
        assert read_tsv(path, separator=",") == [("甲", ["科技", "体育"]), ("乙", [])]
        with pytest.raises(DataError, match="line 1, column 2: unknown label '体育'"):
            read_tsv(path, separator=",", labels=["科技"])
        with pytest.raises(DataError, match="line 2, column 2: no label"):
            read_tsv(path)

    def test_other_line_separators_are_text(self, write):
        assert read_tsv(write("甲\u2028乙\x0b丙\r丁\t正")) == [("甲\u2028乙\x0b丙\r丁", "正")]

    @pytest.mark.parametrize("line", ["只有一列", "甲\t乙\t正"])
    def test_malformed(self, write, line):
        with pytest.raises(DataError, match=r"line 2: \d columns .* expected 2"):
            read_tsv(write("很好\t正\n" + line))
        with pytest.raises(DataError, match=r"line 1: 1 columns .* expected 2"):
            read_tsv(write("甲"))

    def test_unknown_label(self, write):
        with pytest.raises(DataError, match="line 2, column 2: unknown label 'postive'; did you mean 'positive'"):
            read_tsv(write("甲\tpositive\n乙\tpostive"), labels=["positive", "negative"])
        with pytest.raises(InputError, match="expected 'first' or 'last'"):
            read_tsv(write("甲\t正"), label="middle")


class TestBio:
    def test_columns_spaces_and_words(self, write):
        rows = read_bio(write("-DOCSTART- O\n\n在 x O\nNew\ty\tB-地\nYork I-地\n\t O\n海 S-地\n\n\n3 O\n0 O"))
        assert rows == [
            {"text": "在New York 海", "entities": [Entity("地", 1, 9), Entity("地", 10, 11)]},
            {"text": "30", "entities": []},
        ]

    @pytest.mark.parametrize(
        ("line", "message"), [("甲", "expected a character"), ("甲 X-人", "tag"), ("甲 B-物", "unknown label '物'")]
    )
    def test_malformed(self, write, line, message):
        with pytest.raises(DataError, match=f"line 2: .*{message}"):
            read_bio(write("在 O\n" + line), labels=["人", "地"])

    @pytest.mark.parametrize(
        "lines",
        [
            "Sentence #,Word,POS,Tag\nSentence: 1,在,P,O\n,京,N,B-地",  # a public set of entities on Kaggle
            "1\t在\tO\n2\t京\tB-地\n\n1\t来\tO",  # GermEval 2014
        ],
    )
    def test_tokens_that_do_not_stand_first(self, write, lines):
        with pytest.raises(DataError, match=r"first column .*expected a token there"):
            read_bio(write(lines, "tags.csv" if "," in lines else "tags.txt"))


class TestSquad:
    def test_answers(self, write):
        answers = [("甲乙", 3), ("甲乙", 1), ("甲乙", 4), ("无", 0), ("甲乙", -1), (" ", 0)]
        found = read_squad(write(squad(answers=answers)))[0]["answers"]
        assert found == [("甲乙", 4), ("甲乙", 0), ("无", None)]

    def test_without_answers(self, write):
        path = write('{"data": [{"paragraphs": [{"context": "甲", "qas": [{"question": "谁？", "id": 7}]}]}]}')
        assert read_squad(path) == [{"id": "7", "question": "谁？", "passage": "甲", "answers": []}]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "no JSON"),
            ('{"data": {}}', "'data'.*expected a list"),
            ('{"data": [1]}', "'paragraphs'"),
            ('{"data": [{"paragraphs": [{"qas": []}]}]}', "'context': none"),
            ('{"data": [{"paragraphs": [{"context": "甲", "qas": [3]}]}]}', "'question'"),
            (squad(answers=[(3, 0)]), "'q1': found 'text': 3"),
            (squad(answers=[("甲", "0")]), "'answer_start'.*whole number"),
            (squad(answers=[]).replace('"answers": []', '"answers": null'), "'answers': None"),
            (squad(question=" "), "'q1': 'question': an empty text"),
            (squad(passage=""), "'context': an empty text"),
        ],
    )
    def test_malformed(self, write, content, message):
        with pytest.raises(DataError, match=message):
            read_squad(write(content))


class TestSplit:
    @pytest.mark.parametrize(
        ("text", "longest", "pieces"),
        [
            ("", 5, []),
            ("甲乙丙", 3, ["甲乙丙"]),
            ("甲。“乙！”丙丁", 6, ["甲。“乙！”", "丙丁"]),
            ("甲。“乙！”丙丁", 5, ["甲。“乙！", "”丙丁"]),
            ("甲。乙，丙丁戊己庚", 5, ["甲。", "乙，", "丙丁戊己庚"]),
            ("甲乙丙丁戊", 2, ["甲乙", "丙丁", "戊"]),
            ("It is 3.14. Or so", 14, ["It is 3.14.", " Or so"]),
            ("1,234 567", 4, ["1,23", "4 ", "567"]),
        ],
    )
    def test_where(self, text, longest, pieces):
        assert [piece for _, piece in split_text(text, longest)] == pieces

    def test_together_they_are_the_text(self):
        text = "一二，三。四 五\n\n六！？”七八九\ud83d十；a b.c  d" * 3
        for longest in range(1, 30):
            pieces = split_text(text, longest)
            assert "".join(piece for _, piece in pieces) == text
            assert all(text.startswith(piece, offset) and 0 < len(piece) <= longest for offset, piece in pieces)
        with pytest.raises(InputError, match="at least 1"):
            split_text(text, 0)


TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"甲乙丙。，ab12", "##a", "##b", "##1", "##2", "ᄀ", "##ᅡ", "##ᆨ"]
TEXT = "甲乙。  ab 丁a1，\n😀丙。\ud83dba12abab12\u3000甲"


class TestPieces:
    tokenizer = Tokenizer({token: i for i, token in enumerate(TOKENS)}, do_lower_case=True)

    @pytest.mark.parametrize("maxlen", [3, 4, 7, 12, 50])
    def test_are_the_tokens_of_the_text(self, maxlen):
        ids, offsets = encode_with_offsets(self.tokenizer, TEXT)
        pieces = encode_pieces(self.tokenizer, TEXT, maxlen)
        assert [i for p in pieces for i in p.token_ids[1:-1]] == ids == self.tokenizer.encode(TEXT)[0][1:-1]
        assert [o for p in pieces for o in p.offsets[1:-1]] == offsets
        for p in pieces:
            assert p.length == len(p.offsets) <= maxlen
            assert (p.token_ids[0], p.token_ids[-1]) == (self.tokenizer.start_id, self.tokenizer.end_id)
            assert p.written.tolist() == [False, *[True] * (p.length - 2), False]
            assert p.start <= p.offsets[1][0] and p.offsets[-2][1] <= p.end

    def test_offsets(self):
        (piece,) = encode_pieces(self.tokenizer, TEXT, 50)
        for part in ("甲乙", "ab", "丁", "1", "😀", "12abab12", "ba12abab12\u3000甲"):
            start = TEXT.index(part)
            tokens = piece.tokens(start, start + len(part))
            assert TEXT[slice(*piece.characters(*tokens))] == part
        start = TEXT.index("ab")
        assert piece.tokens(start - 1, start + 3) == piece.tokens(start, start + 2), "spaces around"
        assert piece.tokens(3, 5) is None, "spaces only"
        assert piece.tokens(TEXT.index("\ud83d"), TEXT.index("\ud83d") + 1) is None, "cleaned away"

    def test_within_a_token(self):
        tokenizer = Tokenizer({token: i for i, token in enumerate([*TOKENS, "2019"])})
        (piece,) = encode_pieces(tokenizer, "甲2019乙", 50)
        assert piece.tokens(1, 3) is None
        assert piece.tokens(3, 6) is None
        assert piece.tokens(1, 5) == (2, 2)

    def test_across_a_cut(self):
        first, second = encode_pieces(self.tokenizer, "甲乙丙甲乙丙", 6)
        assert first.tokens(0, 4) == (1, 4)
        assert (first.tokens(3, 5), second.tokens(3, 5), second.tokens(4, 6)) == (None, None, (1, 2))

    def test_a_character_of_many_tokens(self):
        pieces = encode_pieces(self.tokenizer, "각 각甲", 4)
        assert [[TOKENS[i] for i in p.token_ids[1:-1]] for p in pieces] == [["ᄀ", "##ᅡ"], ["ᄀ", "##ᅡ"], ["甲"]]
        assert [(p.start, p.end) for p in pieces] == [(0, 1), (2, 3), (3, 4)]

    def test_nothing(self):
        assert encode_pieces(self.tokenizer, "", 8) == encode_pieces(self.tokenizer, " \n\u3000", 8) == []
        with pytest.raises(TokenizerError, match="does not tell where"):
            encode_with_offsets(object(), "甲")


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data, which is not part of the repository")
class TestRealFiles:
    def test_triples(self):
        schemas = [json.loads(line) for line in (DATA / "triples" / "all_50_schemas").open(encoding="utf-8")]
        rows = read_triples(DATA / "triples" / "ske_dev.jsonl.xz", {schema["predicate"] for schema in schemas})
        assert len(rows) == 1000
        assert len(read_triples(DATA / "triples" / "baidu_demo_spo.jsonl")) == 100

    def test_tables(self):
        assert len(read_tsv(DATA / "sentiment" / "valid.tsv.xz", labels=["0", "1"])) == 2111
        assert len(read_tsv(DATA / "titles" / "csl_category_dev.tsv")) == 1000
        assert len(read_pairs(DATA / "titles" / "csl_title_train.tsv")) == 1000

    def test_bio(self):
        rows = read_bio(DATA / "ner" / "peoples_daily_dev.bio.xz", labels=["PER", "LOC", "ORG"])
        assert len(rows) == 2318
        assert "青岛海牛队" in {row["text"][start:end] for row in rows for _, start, end in row["entities"]}

    def test_squad(self):
        rows = read_squad(DATA / "reading" / "cmrc2018_dev.json.xz")
        answers = [(row["passage"], *answer) for row in rows for answer in row["answers"]]
        assert len(rows) == 3219
        assert all(passage.startswith(text, start) for passage, text, start in answers if start is not None)
        assert sum(start is None for _, _, start in answers) < 0.05 * len(answers)
