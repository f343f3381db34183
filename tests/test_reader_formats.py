"""Header rows, CSV, JSON, DataFrames, and what annotation tools export."""

import json
import warnings

import pytest

from bert4x.errors import DataError, InputError
from bert4x.metrics.spans import Entity
from bert4x.tasks.readers import read_bio, read_entities, read_labelled, read_pairs, read_triples

ROWS = [("很好吃", "正"), ("太慢了", "负")]


@pytest.fixture
def write(tmp_path):
    """A file of this content by name: text, bytes, or a list of lines that may be JSON."""

    def write(content, name="data.tsv"):
        if isinstance(content, list):
            content = "\n".join(x if isinstance(x, str) else json.dumps(x, ensure_ascii=False) for x in content)
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def said():
    """What a reader says, with `say=said.append`."""
    return []


class TestHeader:
    @pytest.mark.parametrize(
        "names",
        [
            "text\tlabel", "Text\tLABEL", "sentence\tlabel", "content\tsentiment",
            "review_body\tstar_rating",
            "文本\t标签", "评论内容\t情感类别", "text_a\tgold_label", "内容\t分类", "微博正文\t情感极性",
            "query\tclass", '"text"\t"label"', "text\tstance", "sms\tlabel",
        ],
    )  # fmt: skip
    def test_never_is_a_class(self, write, said, names):
        rows = [*ROWS, *ROWS]
        path = write([names, *map("\t".join, rows)])
        assert read_labelled(path, say=said.append) == rows
        assert len(said) == 1 and "it is no example" in said[0] and "--no-header" in said[0] and str(path) in said[0]
        with pytest.warns(UserWarning, match="names the columns"):
            assert read_labelled(path) == rows

    def test_a_word_over_numbers_is_none(self, write, said):
        assert read_labelled(write("wort\tnote\n甲\t1\n乙\t0\n丙\t1"), say=said.append) == [
            ("甲", "1"),
            ("乙", "0"),
            ("丙", "1"),
        ]
        assert len(said) == 1

    @pytest.mark.parametrize(
        "first", ["标题党太多了\t负", "text me later\tham", "评论\t正", "label\t负", "这个分类不对\t负"]
    )
    def test_an_example_stays(self, write, said, first):
        path = write([first, *map("\t".join, [*ROWS, *ROWS])])
        assert read_labelled(path, say=said.append)[0] == tuple(first.split("\t"))
        assert said == []

    def test_is_decided_by_the_user(self, write, said):
        path = write(["text\tlabel", *map("\t".join, ROWS)])
        assert read_labelled(path, header=False, say=said.append) == [("text", "label"), *ROWS]
        assert read_labelled(write("甲乙\t好\n很好吃\t正\n太慢了\t负"), header=True, say=said.append) == ROWS
        assert said == []

    def test_a_class_of_the_first_line_alone_is_said(self, write, said):
        rows = [("甲", "其他"), *ROWS * 3]
        assert read_labelled(write(list(map("\t".join, rows))), say=said.append) == rows
        assert len(said) == 1 and "'其他'" in said[0] and "--header" in said[0]

    def test_with_known_labels_the_first_line_is_an_example(self, write, said):
        path = write("title\tcategory\n很好\ttopic")
        assert read_labelled(path, labels=["category", "topic"], say=said.append) == [
            ("title", "category"),
            ("很好", "topic"),
        ]

    def test_of_pairs(self, write, said):
        path = write("id,sentence1,sentence2,label\n1,甲,乙,0\n2,丙,丁,1", "pairs.csv")
        assert read_labelled(path, texts=2, say=said.append) == [("甲", "乙", "0"), ("丙", "丁", "1")]
        with pytest.raises(DataError, match=r"'sentence1', 'sentence2' could each be the text; .*--text-column"):
            read_labelled(path, say=said.append)
        path = write("label,sentence2,sentence1\n0,乙,甲", "pairs.csv")
        assert read_labelled(path, texts=2, say=said.append) == [("甲", "乙", "0")]

    @pytest.mark.parametrize("names", ["标题,正文", "title,content", "summary,text", "target,source"])
    def test_of_sources_and_targets_whose_names_decide(self, write, said, names):
        assert read_pairs(write(f"{names}\n短,很长的文章", "titles.csv"), say=said.append) == [("很长的文章", "短")]
        assert len(said) == 1

    def test_of_two_languages_the_place_decides(self, write, said):
        assert read_pairs(write("英文\t中文\nyes\t是"), say=said.append) == [("yes", "是")]

    def test_of_tokens(self, write, said):
        text = "字 标签\n北 B-LOC\n京 I-LOC"
        expected = [{"text": "北京", "entities": [Entity("LOC", 0, 2)]}]
        assert read_bio(write(text), say=said.append) == expected
        assert len(said) == 1 and "字, 标签" in said[0]
        with pytest.raises(DataError, match=r"line 1.*tag"):
            read_bio(write(text), header=False)
        assert read_bio(write("x y\n北 B-LOC\n京 I-LOC"), header=True) == expected


class TestColumns:
    def test_by_name_wherever_they_are(self, write):
        path = write("label,id,review\n正,1,很好吃\n负,2,太慢了", "data.csv")
        assert read_labelled(path, say=[].append) == ROWS
        assert read_labelled(path, text_column="id", label_column="label", say=[].append)[0] == ("1", "正")

    def test_by_number_without_names(self, write):
        path = write("1\t正\t很好吃\tx\n2\t负\t太慢了\ty")
        assert read_labelled(path, text_column="3", label_column="2") == ROWS
        assert read_labelled(path, text_column=3, label_column=2) == ROWS
        assert read_labelled(path, label="first")[0] == ("正", "1")

    def test_that_the_user_names_make_a_header(self, write, said):
        path = write("was\twie\n很好吃\t正\n太慢了\t负")
        assert read_labelled(path, text_column="was", label_column="wie", say=said.append) == ROWS

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"text_column": "reviw"}, "no column 'reviw'; did you mean 'review'"),
            ({"label_column": "7"}, "no column 7; expected 1 to 3"),
            ({"label_column": 0}, "no column 0; expected 1 to 3"),
        ],
    )
    def test_that_are_not_there(self, write, options, message):
        with pytest.raises(DataError, match=message):
            read_labelled(write("label,id,review\n正,1,很好吃", "data.csv"), header=True, **options)
        with pytest.raises(DataError, match="names none"):
            read_labelled(write("很好吃\t正"), text_column="review")

    def test_that_several_have_the_name_of(self, write):
        with pytest.raises(DataError, match="2 columns are called 'text'"):
            read_labelled(write("text,text,label\n甲,乙,正", "d.csv"), text_column="text")


class TestCsv:
    def test_quotes_commas_and_line_ends(self, write):
        content = '\ufefftext,label\r\n"他说""好"", 真的",正\r\n"两行\r\n文字",负\r\n\r\n'
        assert read_labelled(write(content, "data.csv"), say=[].append) == [
            ('他说"好", 真的', "正"),
            ("两行\n文字", "负"),
        ]

    @pytest.mark.parametrize("mark", ["\t", ";"])
    def test_other_separators(self, write, mark):
        content = f'text{mark}label\n"a,b",正\n'.replace('",', f'"{mark}')
        assert read_labelled(write(content, "data.csv"), say=[].append) == [("a,b", "正")]

    def test_separators_that_excel_is_told(self, write, said):
        for mark in ";,\t":
            rows = f"sep={mark}\ntext{mark}label\n好{mark}正"
            assert read_labelled(write(rows, "data.csv"), header=True, say=said.append) == [("好", "正")]
        assert said == []
        lines = "好吃, 真的;正\n太慢, 真的;负"
        assert read_labelled(write(f"sep=;\n{lines}", "data.csv"), say=said.append)[0] == ("好吃, 真的", "正")
        assert said == []
        assert read_labelled(write(lines, "data.csv"), say=said.append)[0] == ("好吃", "真的;正")
        assert (
            len(said) == 1 and "semicolons would divide all lines as well as commas" in said[0] and "sep=;" in said[0]
        )
        lines = lines.replace(" 真的;正", "真的;正,中")  # commas do not divide all lines alike
        assert read_labelled(write(lines, "data.csv"), say=[].append)[0] == ("好吃,真的", "正,中")

    def test_empty_texts_are_named(self, write):
        for name, content in {
            "d.csv": 'text,label\n好,正\n"",负',
            "d.tsv": "text\tlabel\n好\t正\n \t负",
            "d.jsonl": '{"text": "好", "label": "正"}\n{"text": "好", "label": "正"}\n{"text": "", "label": "负"}',
        }.items():
            with pytest.raises(DataError, match=f"{name}, line 3, column 'text': an empty text"):
                read_labelled(write(content, name), say=[].append)
        with pytest.raises(DataError, match="line 1, column 2: an empty text"):
            read_pairs(write("长文\t\n长文\t题"), say=[].append)

    def test_columns_that_are_not_read_are_said(self, write, said):
        assert read_labelled(write("甲\t乙\t正"), say=said.append) == [("乙", "正")]
        assert len(said) == 1 and "of 3 columns only these are read: text = 2, label = 3" in said[0]
        assert read_labelled(write("甲\t乙\t正"), text_column=1, label_column=3, say=said.append) == [("甲", "正")]
        assert len(said) == 1

    def test_lines_are_those_of_the_file(self, write):
        with pytest.raises(DataError, match=r"data\.csv, line 4, column 'label': no label"):
            read_labelled(write('text,label\n"两\n行",正\n丙,""', "data.csv"), header=True)
        with pytest.raises(DataError, match=r"data\.csv, line 4: 3 columns .* expected 2, between commas"):
            read_labelled(write('text,label\n"两\n行",正\n丙,乙,负', "data.csv"), header=True)

    @pytest.mark.parametrize("content", ['甲,正\n"乙,负\n丙,正', '甲,正\n"乙"丙,负'])
    def test_quotes_that_do_not_end(self, write, content):
        with pytest.raises(DataError, match=r"line 2: no CSV: .*quote"):
            read_labelled(write(content, "data.csv"))

    def test_long_cells(self, write):
        text = "长" * 200_000
        assert read_labelled(write(f"{text},正\n", "data.csv")) == [(text, "正")]

    def test_quotes_are_text_in_tsv(self, write):
        assert read_labelled(write('"好\t正\n""\t负')) == [('"好', "正"), ('""', "负")]

    @pytest.mark.parametrize("name", ["data.csv"])
    def test_other_encodings_are_named(self, write, name):
        with pytest.raises(DataError, match=r"line 2: no UTF-8 .*GB18030.*'很好吃.*save the file as UTF-8"):
            read_labelled(write("太慢了,负\n".encode() + "很好吃,正".encode("gbk"), name))
        with pytest.raises(DataError, match="UTF-16"):
            read_labelled(write("很好吃\t正".encode("utf-16"), name))

    @pytest.mark.parametrize(
        ("begin", "message"),
        [
            (b"PK\x03\x04", r"Excel's \.xlsx"),
            (b"PAR1", "Parquet"),
            (b"\x1f\x8b", "gzip"),
            (b"a\t1\rb\t2\r", "CR"),
        ],
    )
    def test_what_is_no_lines_of_text(self, write, begin, message):
        with pytest.raises(DataError, match=message):
            read_labelled(write(begin))

    def test_labels_in_the_place_of_texts(self, write, said):
        rows = "体育\t甲\n财经\t乙\n体育\t丙\n"
        assert len(read_labelled(write(rows), say=said.append)) == 3
        assert "3 labels in 3 rows, but 2 texts" in said.pop() and not said
        assert read_labelled(write(rows), label="first", say=said.append)[0] == ("甲", "体育") and not said


class TestJson:
    def test_choices_of_label_studio(self, write):
        cancelled, given = {"was_cancelled": True, "result": []}, {"type": "choices", "value": {"choices": ["正"]}}
        rows = [{"id": 1, "data": {"text": "甲"}, "annotations": [cancelled, {"result": [given]}]}]
        assert read_labelled(write(json.dumps(rows), "d.json")) == [("甲", "正")]
        with pytest.raises(DataError, match="item 2, column 'label': no label"):
            read_labelled(write(json.dumps([*rows, rows[0] | {"annotations": []}]), "d.json"))

    @pytest.mark.parametrize("array", [True, False])
    @pytest.mark.parametrize("names", [("text", "label"), ("文本", "标签"), ("review", "sentiment")])
    def test_lines_and_arrays(self, write, array, names):
        rows = [{"id": i, **dict(zip(names, row, strict=True))} for i, row in enumerate(ROWS)]
        path = write(json.dumps(rows, indent=1) if array else rows, "data.json" if array else "data.jsonl")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_labelled(path) == ROWS
        spaced = path.read_text("utf-8").replace("{", "{ ")
        assert read_labelled(write(spaced, "data.txt")) == ROWS  # known by its first line

    def test_labels_are_words_and_numbers_and_lists_of_one(self, write):
        path = write(
            [{"text": "甲", "label": 1}, {"text": "乙", "label": ["正"]}, {"text": "丙", "label": True}], "d.jsonl"
        )
        assert [label for _, label in read_labelled(path)] == ["1", "正", "True"]
        path = write([{"text": "甲", "label": ["正", "负"]}, {"text": "乙", "label": []}], "d.jsonl")
        assert read_labelled(path, separator=",") == [("甲", ["正", "负"]), ("乙", [])]
        with pytest.raises(DataError, match=r"2 labels, 正, 负; .*--several"):
            read_labelled(path)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"text": "甲", "label": None}, "line 2, column 'label': no label but None"),
            ({"text": "甲", "label": float("nan")}, "line 2, column 'label': no label but nan"),
            ({"text": None, "label": "正"}, "line 2, column 'text': found None; expected text"),
            ({"text": 3, "label": "正"}, "line 2, column 'text': found 3"),
            ({"text": "甲", "label": {"a": 1}}, "line 2, column 'label': found"),
            ({"text": "甲"}, "line 2: no column 'label'; found text"),
            ({"text": "甲", "label": " "}, "line 2, column 'label': no label"),
        ],
    )
    def test_rows_that_cannot_be(self, write, row, message):
        with pytest.raises(DataError, match=message):
            read_labelled(write([{"text": "乙", "label": "负"}, row], "d.jsonl"))

    def test_columns_that_do_not_say(self, write):
        path = write([{"a": "甲", "b": "正", "c": "x"}], "d.jsonl")
        with pytest.raises(DataError, match=r"which column is the text\? found a, b, c; say --text-column"):
            read_labelled(path)
        assert read_labelled(path, text_column="a", label_column="b") == [("甲", "正")]
        assert read_labelled(path, label_column="b", text_column="c") == [("x", "正")]
        with pytest.raises(DataError, match="item 2: found JSON of type str"):
            read_labelled(write('[{"text": "甲", "label": "正"}, "乙"]', "d.json"))


class TestDataFrames:
    def test_columns_by_name(self):
        pandas = pytest.importorskip("pandas", reason="DataFrames are those of pandas, which bert4x does not need")
        frame = pandas.DataFrame({"星级": [1, 0], "评论": ["很好吃", "太慢了"]}, index=["a", "b"])
        assert read_labelled(frame, label_column="星级") == [("很好吃", "1"), ("太慢了", "0")]
        frame = pandas.DataFrame({"text": ["甲", None], "label": ["正", "负"]}, index=[7, 9])
        with pytest.raises(DataError, match="the DataFrame, row 9, column 'text': found"):
            read_labelled(frame)
        for missing in (None, float("nan"), pandas.NA, pandas.NaT):
            frame = pandas.DataFrame({"text": ["甲", "乙"], "label": ["正", missing]}, dtype=object)
            with pytest.raises(DataError, match="the DataFrame, row 1, column 'label': no label but"):
                read_labelled(frame)
        with pytest.raises(DataError, match="no column 'Text'; did you mean 'text'"):
            read_labelled(frame, text_column="Text")
        with pytest.raises(DataError, match="two columns 'text'"):
            read_labelled(frame.rename(columns={"label": "text"}))
        with pytest.raises(DataError, match="no examples"):
            read_labelled(frame[:0])

    def test_looks_like_one(self):
        """What is read of a DataFrame, where pandas is not there."""

        class Frame:
            columns = ("text", "label")

            def itertuples(self, name):
                return iter([(4, "甲", "正"), (8, "乙", float("nan"))])

        with pytest.raises(DataError, match="the DataFrame, row 8, column 'label': no label but nan"):
            read_labelled(Frame())

    def test_dicts(self):
        assert read_labelled([{"text": "甲", "label": 2}]) == [("甲", "2")]
        assert read_pairs([{"content": "长", "title": "短"}]) == [("长", "短")]
        with pytest.raises(InputError, match="row 0 is"):
            read_labelled([("甲", "正")])


def studio(text, *spans, relations=(), data="text", **options):
    """A task of Label Studio: spans are (id, label, start, end, words)."""
    result = [
        {"id": n, "type": "labels", "from_name": "label", "to_name": "text",
         "value": {"start": start, "end": end, "text": words, "labels": [label]}}
        for n, label, start, end, words in spans
    ]  # fmt: skip
    result += [
        {"type": "relation", "from_id": a, "to_id": b, "direction": way, "labels": labels}
        for a, b, way, labels in relations
    ]
    return {"id": 1, "data": {data: text}, "annotations": [{"was_cancelled": False, "result": result}]} | options


TEXT = "王杰写了忘了所有"
SPANS = [Entity("人物", 0, 2), Entity("歌曲", 4, 8)]
EXPORTS = {
    "doccano.jsonl": [{"id": 1, "text": TEXT, "label": [[0, 2, "人物"], [4, 8, "歌曲"]], "Comments": []}],
    "doccano-labels.jsonl": [{"id": 1, "data": TEXT, "labels": [[0, 2, "人物"], [4, 8, "歌曲"]]}],
    "doccano-relations.jsonl": [
        {
            "text": TEXT,
            "entities": [
                {"id": 5, "label": "人物", "start_offset": 0, "end_offset": 2},
                {"id": 9, "label": "歌曲", "start_offset": 4, "end_offset": 8},
            ],
            "relations": [{"id": 1, "from_id": 9, "to_id": 5, "type": "作词"}],
        }
    ],
    "ours.jsonl": [{"text": TEXT, "entities": [["人物", 0, 2], ["歌曲", 4, 8]]}],
    "cluener.jsonl": [{"text": TEXT, "label": {"人物": {"王杰": [[0, 1]]}, "歌曲": {"忘了所有": [[4, 7]]}}}],
    "studio.json": json.dumps(
        [
            studio(
                TEXT,
                ("x", "人物", 0, 2, "王杰"),
                ("y", "歌曲", 4, 8, "忘了所有"),
                relations=[("x", "y", "left", ["作词"])],
            )
        ]
    ),
    "studio-min.json": json.dumps(
        [
            {
                "id": 1,
                "text": TEXT,
                "annotator": 1,
                "label": [
                    {"start": 0, "end": 2, "text": "王杰", "labels": ["人物"]},
                    {"start": 4, "end": 8, "text": "忘了所有", "labels": ["歌曲"]},
                ],
            }
        ]
    ),
    "conll.txt": "-DOCSTART- -X- O O\n\n王 -X- _ B-人物\n杰 -X- _ I-人物\n写 -X- _ O\n了 -X- _ O\n忘 -X- _ B-歌曲\n"
    "了 -X- _ I-歌曲\n所 -X- _ I-歌曲\n有 -X- _ I-歌曲\n",
    "comments.conll": "# id 42\tdomain=zh\n王 _ _ B-人物\n杰 _ _ I-人物\n写 O\n了 O\n忘 B-歌曲\n"
    "了 I-歌曲\n所 I-歌曲\n有 I-歌曲",
    "tokens.csv": "王,B-人物\n杰,I-人物\n写,O\n了,O\n忘,B-歌曲\n了,I-歌曲\n所,I-歌曲\n有,I-歌曲\n",
}


class TestAnnotations:
    @pytest.mark.parametrize("name", EXPORTS)
    def test_entities(self, write, name):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_entities(write(EXPORTS[name], name)) == [{"text": TEXT, "entities": SPANS}]

    @pytest.mark.parametrize("name", ["doccano-relations.jsonl", "studio.json"])
    def test_triples(self, write, name):
        expected = [{"text": TEXT, "spo_list": [("忘了所有", "作词", "王杰")]}]
        assert read_triples(write(EXPORTS[name], name)) == expected
        with pytest.raises(DataError, match=": unknown predicate '作词'"):
            read_triples(write(EXPORTS[name], name), predicates=["作曲"])

    def test_labels_that_are_not_known(self, write):
        with pytest.raises(DataError, match=r"d\.jsonl, line 1: unknown label '歌曲'"):
            read_entities(write(EXPORTS["doccano.jsonl"], "d.jsonl"), labels=["人物"])

    def test_what_nobody_annotated_is_said(self, write, said):
        first = studio(TEXT, ("x", "人物", 0, 2, "王杰"))
        rows = [
            first, first | {"annotations": []}, studio("无", annotations=[{"was_cancelled": True, "result": []}]),
            first | {"annotations": [{"result": []}] + first["annotations"]},
        ]  # fmt: skip
        found = read_entities(write(json.dumps(rows), "d.json"), say=said.append)
        assert [len(row["entities"]) for row in found] == [1, 0]
        assert [line.partition(": ")[2] for line in said] == [
            "2 texts without an annotation, left out",
            "1 texts with several annotations, of which the first is read",
        ]

    def test_label_studio_counts_utf16(self, write):
        text = "😀王杰来"
        for start in (1, 2):
            path = write([studio(text, ("x", "人物", start, start + 2, "王杰"))], "d.jsonl")
            assert read_entities(path) == [{"text": text, "entities": [Entity("人物", 1, 3)]}]
        path = write([studio(text, ("x", "人物", 0, 2, "王杰"))], "d.jsonl")
        with pytest.raises(DataError, match="line 1: characters 0 to 2 are '😀王'; expected '王杰'"):
            read_entities(path)

    def test_both_directions_and_several_labels(self, write):
        arrows = [("x", "y", "bi", ["同"]), ("x", "y", "right", ["甲", "乙"])]
        row = studio("王杰", ("x", "字", 0, 1, "王"), ("y", "字", 1, 2, "杰"), relations=arrows)
        (found,) = read_triples(write([row], "d.jsonl"))
        assert found["spo_list"] == [("王", "同", "杰"), ("杰", "同", "王"), ("王", "甲", "杰"), ("王", "乙", "杰")]

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"text": "甲", "label": [[0, 2, "字"]]}, "字 at 0 to 2 of a text of 1 characters"),
            ({"text": "甲", "label": [[0, "字"]]}, r"expected \[start, end, label\]"),
            ({"text": "甲", "label": [[0, 1, None]]}, r"expected \[start, end, label\]"),
            ({"text": "甲", "label": [[True, 1, "字"]]}, r"expected \[start, end, label\]"),
            ({"text": "甲", "tags": []}, "found text, tags; expected doccano's"),
            ({"label": []}, "'text': none; expected text"),
            ({"text": "甲", "label": {"字": {"乙": [[0, 0]]}}}, "are '甲'; expected '乙'"),
            ({"text": "甲", "label": {"字": [[0, 0]]}}, "expected {words"),
            (studio("甲", ("x", "字", 0, 1, "甲"), relations=[("x", "z", "right", ["同"])]), "'z', which is no entity"),
            (studio("甲", ("x", "字", 0, 1, "甲"), relations=[("x", "x", "right", [])]), "relation without a label"),
        ],
    )
    def test_malformed(self, write, row, message):
        read = read_triples if "annotations" in row else read_entities
        good = studio("甲", ("x", "字", 0, 1, "甲")) if "annotations" in row else {"text": "乙", "label": []}
        with pytest.raises(DataError, match=rf"d\.jsonl, line 2: .*{message}"):
            read(write([good, row], "d.jsonl"))
