"""Train a model that writes a text from a text: titles, summaries, answers, couplets.

    python recipes/unilm_seq2seq.py
    python recipes/unilm_seq2seq.py --train titles.tsv --valid valid.tsv --output runs/titles
    python recipes/unilm_seq2seq.py --train titles.tsv --model chinese_L-12_H-768_A-12 --learning-rate 2e-5

A file is TSV, `source <tab> target` in every line (of more columns, the last two), or CSV, JSON lines or a JSON array,
by its name; all may be .xz. Without --train it learns from toy news. Then:

    import bert4x
    title = bert4x.pipeline("seq2seq", "runs/titles")
    title("昨天上午，市图书馆举办了读书会。大家轮流朗读自己喜欢的文章。")
    title(["...", "..."], num_beams=1, top_p=0.9, num_return_sequences=3)  # drawn: three titles each
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bert4x import recipe
from bert4x.tasks.readers import read_pairs
from bert4x.tasks.seq2seq import Seq2Seq

TOY = Path(__file__).parent / "data/toy_titles.tsv"


@dataclass
class Arguments(recipe.Arguments):
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 3, "max_target": 16, "max_length": 64, "learning_rate": 2e-3}

    output: Path = recipe.option(Path("runs/unilm_seq2seq"), "folder of the run")
    epochs: int = recipe.option(10, "times that every example is seen", least=1)
    learning_rate: float = recipe.option(3e-4, "its peak", above=0)
    header: bool | None = recipe.option(None, "whether the first line names the columns; default: by what it says")
    source_column: str | None = recipe.option(None, "the source's name, or number from 1; default: by the names")
    target_column: str | None = recipe.option(None, "the target's")
    max_target: int = recipe.option(32, "tokens of a target", least=2)
    beams: int = recipe.option(3, "of the search for the likeliest target", least=1)
    score_rows: int = recipe.option(200, "rows of --valid at most that are decoded after every epoch", least=1)


def main(args):
    with recipe.Run(args) as run:

        def read(path):
            columns = {"source_column": args.source_column, "target_column": args.target_column}
            return read_pairs(path, header=args.header, say=run.say, **columns)

        # 1. Sources and targets.
        train, valid = run.data(read, TOY)

        # 2. One encoder for both: attention is masked so that the target sees the source and its own past. The head
        # that was pretrained to find masked tokens now finds the next one.
        task = Seq2Seq(run.load("unilm"), max_target=args.max_target, num_beams=args.beams, maxlen=args.max_length)

        # 3. Training; after every epoch some targets are decoded, and the epoch with the best BLEU is kept.
        report = run.fit(task, train, valid[: args.score_rows])

        # 4. What it writes for sources that it has not seen.
        sample = valid[:5]
        for (source, target), found in zip(sample, task([source for source, _ in sample]), strict=True):
            run.say(f"{source[:80]}\n    {target}\n -> {found}")
        return report


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
