"""Train one model for two uses: vectors that find similar questions, and similar questions that it writes (SimBERT).

    python recipes/similar_questions.py
    python recipes/similar_questions.py --train pairs.tsv --valid dev.tsv --output runs/similar
    python recipes/similar_questions.py --train pairs.tsv --model bert-base-chinese --learning-rate 2e-5

A file is TSV, `question <tab> question of the same meaning` in every line, or CSV, JSON lines or a JSON array. Each is
the source of the other, in a UniLM; and the state of a source's [CLS] is its vector, which is to be nearer to that of
the other question than to all of the batch (kexue.fm/archives/7427). Then:

    import bert4x
    encoder = bert4x.embedder("runs/similar", pooling="cls")
    encoder.search("怎么退款", ["如何办理退款", "今天天气很好"])
    bert4x.pipeline("seq2seq", "runs/similar")("怎么退款", num_beams=1, top_p=0.95, num_return_sequences=5)
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bert4x import recipe
from bert4x.tasks.readers import read_pairs
from bert4x.tasks.similar_questions import SimilarQuestions

TOY = Path(__file__).parent / "data/toy_questions.tsv"


@dataclass
class Arguments(recipe.Arguments):
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 4, "batch_size": 8, "learning_rate": 1e-3, "drawn": 8}

    output: Path = recipe.option(Path("runs/similar_questions"), "folder of the run")
    header: bool | None = recipe.option(None, "whether the first line names the columns; default: by what it says")
    source_column: str | None = recipe.option(None, "a question's name, or number from 1; default: by the names")
    target_column: str | None = recipe.option(None, "the other question's")
    epochs: int = recipe.option(10, "times that every pair is seen", least=1)
    batch_size: int = recipe.option(32, "pairs of a batch", least=2)
    max_length: int = recipe.option(64, "tokens of a question that is read", least=8)
    max_target: int = recipe.option(64, "tokens of one that is written", least=2)
    score_rows: int = recipe.option(200, "rows of --valid at most that are scored after every epoch", least=1)
    drawn: int = recipe.option(20, "questions that are drawn for one at the end", least=1)


def main(args):
    with recipe.Run(args) as run:
        # 1. Pairs of questions of the same meaning.
        def read(path):
            columns = {"source_column": args.source_column, "target_column": args.target_column}
            return read_pairs(path, header=args.header, say=run.say, **columns)

        train, valid = run.data(read, TOY)

        # 2. One encoder for both uses. A target sees its source and its own past; a source sees nothing of its target,
        # so that its [CLS] is the same whatever is written for it.
        task = SimilarQuestions(run.load("unilm"), max_target=args.max_target, num_beams=1, maxlen=args.max_length)

        # 3. Training, by the sum of both losses: the weights of the epoch that finds partners best are kept.
        report = run.fit(task, train, valid[: args.score_rows])

        # 4. What is nearest to questions that it has not seen, and what it writes for them.
        encoder, corpus = task.encoder(), [text for row in train for text in row]
        for question, _ in valid[:3]:
            near = [f"    found {score:.3f}  {corpus[i]}" for i, score in encoder.search(question, corpus, 3)]
            new = [f"    wrote {score:.3f}  {text}" for text, score in task.similar(question, 3, args.drawn, seed=0)]
            run.say("\n".join([question, *near, *new]))
        return report


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
