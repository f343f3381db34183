"""Train a model to answer questions with a part of a passage.

    python recipes/reading_comprehension.py
    python recipes/reading_comprehension.py --train cmrc2018_train.json --valid cmrc2018_dev.json --output runs/cmrc
    python recipes/reading_comprehension.py --train cmrc2018_train.json --valid cmrc2018_dev.json \\
        --model chinese_L-12_H-768_A-12 --learning-rate 3e-5 --epochs 2 --max-length 512

A file is JSON, or that in .xz, as of SQuAD and CMRC 2018: passages, their questions, and answers with the character at
which they begin. Without --train it learns from toy data. Then:

    import bert4x
    read = bert4x.pipeline("reading-comprehension", "runs/cmrc")
    read("张三去了哪里？", "张三昨天坐火车去了北京，今天才回来。")

A passage that is longer than --max-length is read in windows that overlap; answers that are in none are counted. The
scores are those of CMRC 2018.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bert4x import recipe
from bert4x.tasks.readers import read_squad
from bert4x.tasks.reading_comprehension import ReadingComprehension

TOY = Path(__file__).parent / "data/toy_reading.json"


@dataclass
class Arguments(recipe.Arguments):
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 8, "batch_size": 8, "learning_rate": 1e-3}

    output: Path = recipe.option(Path("runs/reading_comprehension"), "folder of the run")
    epochs: int = recipe.option(10, "times that every question is seen", least=1)
    learning_rate: float = recipe.option(3e-4, "its peak; for a large pretrained model rather 3e-5", above=0)
    max_length: int = recipe.option(384, "tokens of a question and its window of the passage", least=8)
    stride: int | None = recipe.option(
        None, "tokens from the beginning of a window to that of the next; default: such that windows overlap", least=1
    )
    longest_answer: int = recipe.option(64, "tokens of an answer at most", least=1)
    score_rows: int = recipe.option(500, "questions of --valid at most that are scored after every epoch", least=1)


def main(args):
    with recipe.Run(args) as run:
        # 1. Questions on passages.
        train, valid = run.data(read_squad, TOY)

        # 2. A pretrained encoder of both; on each hidden state its scores as the first and last token of the answer.
        task = ReadingComprehension(
            run.load(), stride=args.stride, longest_answer=args.longest_answer, maxlen=args.max_length
        )

        # 3. Training: the weights of the epoch with the best F1 are kept.
        report = run.fit(task, train, valid[: args.score_rows])

        # 4. What it answers to questions that it has not seen.
        sample = valid[:5]
        found = task([(row["question"], row["passage"]) for row in sample])
        for row, answer in zip(sample, found, strict=True):
            ours = f"{answer.text} ({answer.start}-{answer.end}, {answer.score:.2f})" if answer else "nothing"
            right = " / ".join(text for text, _ in row["answers"])
            run.say(f"{row['passage'][:80]}\n    {row['question']} {right} -> {ours}")
        return report


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
