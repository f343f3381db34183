"""Pipelines by name: transformers' names, models that pretraining is enough for, and lists where one text is taken."""

import pytest

import bert4x
from bert4x.errors import CheckpointNotFoundError, InputError, UnknownOptionError
from bert4x.tasks.pipelines import OTHER_NAMES, PRETRAINED, TASKS, named_class
from bert4x.tasks.reading_comprehension import ReadingComprehension
from bert4x.tasks.seq2seq import Seq2Seq
from bert4x.tasks.text_classification import TextClassification
from bert4x.tasks.token_classification import TokenClassification
from bert4x.tasks.triple_extraction import TripleExtraction
from bert4x.tasks.universal_extraction import UniversalExtraction

POEM = "床前明[MASK]光"


@pytest.fixture(scope="module")
def model():
    return bert4x.load()


@pytest.fixture(scope="module")
def tasks(model):
    """An untrained task of each kind."""
    return {
        "text-classification": TextClassification(model, ["差评", "好评"]),
        "token-classification": TokenClassification(model, ["人", "地"]),
        "triple-extraction": TripleExtraction(model, ["作者"]),
        "reading-comprehension": ReadingComprehension(model, maxlen=64),
        "universal-extraction": UniversalExtraction(model, "人物", maxlen=64),
        "seq2seq": Seq2Seq(bert4x.load(application="unilm"), max_target=4, maxlen=32, num_beams=1),
    }


def test_every_name_is_a_class():
    for home in [*TASKS.values(), *(home for home, _ in PRETRAINED.values())]:
        assert isinstance(named_class(home), type)
    assert set(OTHER_NAMES.values()) <= set(TASKS)


def test_fill_mask():
    fill = bert4x.pipeline("fill-mask")
    (guesses,) = fill(POEM)

    def near(found, expected=guesses):
        """The same texts, in the same order, to what another padding rounds otherwise."""
        same = [one.text for one in found] == [one.text for one in expected]
        return same and all(
            a.probability == pytest.approx(b.probability, rel=1e-5) for a, b in zip(found, expected, strict=True)
        )

    assert near(bert4x.fill_mask(POEM)[0]) and guesses[0].token == "月"
    assert near(fill([POEM, "举头望[MASK]月"])[0][0])
    assert fill([]) == [] and near(bert4x.fill_mask([POEM], top_k=1)[0][0], guesses[:1])
    with pytest.raises(InputError, match="expected a text"):
        fill(7)


def test_text_generation():
    write = bert4x.pipeline("text-generation")
    one = write("白日依山尽，", max_new_tokens=3)
    assert write(["白日依山尽，"] * 2, max_new_tokens=3) == [one, one]


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_names_of_transformers(name, tasks, tmp_path):
    task = tasks[OTHER_NAMES[name]]
    folder = task.save(tmp_path / "task")
    assert type(bert4x.pipeline(name, folder)) is type(task)


def test_a_close_misspelling_gets_a_hint():
    for wrong, right in {"sentiment_analysis": "sentiment-analysis", "fillmask": "fill-mask", "nre": "ner"}.items():
        with pytest.raises(UnknownOptionError, match=f"did you mean '{right}'"):
            bert4x.pipeline(wrong, "anywhere")
    with pytest.raises(CheckpointNotFoundError, match="the folder of a trained one"):
        bert4x.pipeline("ner")


TEXTS = ["味道不错，价格也公道", "床前明月光", ""]


@pytest.mark.parametrize("name", ["text-classification", "token-classification", "triple-extraction", "seq2seq"])
def test_lists(name, tasks):
    """A list has the answers of its texts."""
    task = tasks[name]

    def plain(answer):
        """Without the scores, which batches change in their last digits."""
        if name == "token-classification":
            return [(entity.label, entity.start, entity.end) for entity in answer]
        return answer.label if name == "text-classification" else answer

    single = [plain(task(text)) for text in TEXTS]
    for several in (TEXTS, iter(TEXTS)):
        assert [plain(answer) for answer in task(several)] == single
    assert task([]) == []
    for wrong in (7, None, [7]):
        with pytest.raises(InputError):
            task(wrong)


def test_lists_of_questions(tasks):
    read, passage = tasks["reading-comprehension"], "李白，字太白，唐代诗人。"
    questions = ["谁是诗人？", "何代"]  # the second of two characters, which are no pair of texts
    single = [read(question, passage) for question in questions]

    def same(answers, expected=single):
        assert [(a.text, a.start) for a in answers] == [(a.text, a.start) for a in expected]

    same(read(questions, passage))
    same(read(questions, [passage] * 2))
    same(read([(question, passage) for question in questions]))
    same(read(questions[0], [passage, passage]), single[:1] * 2)
    assert read([]) == []
    for wrong in [("谁？",), (["谁？", "何代"],), (questions, [passage] * 3), (7,), ([("谁？",)],)]:
        with pytest.raises(InputError):
            read(*wrong)
