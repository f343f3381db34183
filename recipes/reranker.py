"""Train a reranker: a model that reads a question together with an answer, and says how well it answers.

    python recipes/reranker.py
    python recipes/reranker.py --train questions.tsv --valid dev.tsv --output runs/reranker
    python recipes/reranker.py --train questions.jsonl --given --loss listwise --model bert-base-chinese

A file has {"query": ..., "pos": [...], "neg": [...]} in each line, or two columns, a question and what answers it.
Wrong answers decide what a reranker learns: they are looked for among the answers to other questions, as those that
vectors of sentences take for right ones; or they are the file's own, with `--given`. Then:

    import bert4x
    judge = bert4x.reranker("runs/reranker")
    scores, order = judge("怎么申请退款", ["如何办理退款", "今天天气很好"])
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import bert4x
from bert4x import recipe
from bert4x.tasks.ranking import Ranking
from bert4x.tasks.readers import read_compared
from bert4x.tasks.reranker import Reranker

TOY = Path(__file__).parent / "data/toy_questions.tsv"


@dataclass
class Arguments(recipe.Arguments):
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 10, "batch_size": 8, "learning_rate": 1e-3, "wrong": 3}

    output: Path = recipe.option(Path("runs/reranker"), "folder of the run")
    loss: Literal["binary", "listwise"] = recipe.option(
        "binary", "each pair by itself, right or wrong; or the right answer among all of its question"
    )
    header: bool | None = recipe.option(None, "whether the first line names the columns; default: by what it says")
    text_column: str | None = recipe.option(None, "the text's name, or number from 1; default: by the names")
    pair_column: str | None = recipe.option(None, "the answer's")
    wrong: int = recipe.option(7, "wrong answers of a question", least=1)
    given: bool = recipe.option(False, "take the wrong answers of the file, instead of looking for some")
    miner: str | None = recipe.option(
        None, "sentence vectors by which they are found; default: the package's own", only={"given": False}
    )
    nearest: int = recipe.option(50, "of how many of the nearest texts they are drawn", only={"given": False}, least=1)
    batch_size: int = recipe.option(8, "questions of a batch, each with all of its answers", least=1)
    max_length: int = recipe.option(128, "tokens of a question and an answer together", least=8)


def main(args):
    with recipe.Run(args) as run:
        # 1. Questions, each with a right answer, and as many wrong ones as are wanted.
        def read(path):
            return read_compared(
                path, "answers", wrong=args.wrong if args.given else 0, header=args.header, say=run.say,
                text_column=args.text_column, pair_column=args.pair_column,
            )  # fmt: skip

        train, valid = run.data(read, TOY)
        if not args.given:
            train, valid = mined(train, valid, args)

        # 2. A pretrained encoder that reads question and answer as a pair; its first token's state gives one score.
        task = Ranking(run.load(), listwise=args.loss == "listwise", maxlen=args.max_length)

        # 3. Training: the weights of the epoch that puts right answers highest are kept.
        report = run.fit(task, train, valid)

        # 4. What it makes of questions that it has not seen.
        judge = Reranker(task)
        for question, *answers in valid[:3]:
            scores, order = judge(question, answers)
            run.say(question + "".join(f"\n    {scores[i]:.3f}  {answers[i]}" for i in order))
        return report


def mined(train, valid, args):
    """The rows with wrong answers that look right. Both are mined at once: what answers a question of one is not wrong
    in the other.
    """
    rows = list(dict.fromkeys([*train, *valid]))
    rows = bert4x.mine_negatives(bert4x.embedder(args.miner), rows, args.wrong, top_k=args.nearest, seed=args.seed)
    return ([row for row in rows if row[:2] in some] for some in (set(train), set(valid)))


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
