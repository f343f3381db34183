"""Make a trained model smaller: a student of fewer layers learns the same task from its teacher.

    python recipes/text_classification.py --train train.tsv --valid valid.tsv --output runs/teacher
    python recipes/distillation.py --model runs/teacher --train train.tsv --valid valid.tsv --layers 4

The teacher is what another recipe wrote, for any task of an encoder; the files are those of that recipe. The student
begins with some of the teacher's layers, and learns in one of three ways. `--method states`: to have the teacher's
hidden states and answers (Sun et al. 2019, arXiv 1908.09355). `--method theseus`: in the place of some of the teacher's
layers, of more and more of them (Xu et al. 2020, arXiv 2002.02925; kexue.fm/archives/7575). `--method alone`: from the
labels only, to compare with. Without --model a teacher is trained on toy data first. Then:

    import bert4x
    classify = bert4x.pipeline("text-classification", "runs/distillation")
"""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from bert4x import recipe
from bert4x.tasks.distilled import FromStates, InPlace, student_of
from bert4x.tasks.forms import Columns, form_of
from bert4x.tasks.heads import read_task
from bert4x.tasks.pipelines import task_class
from bert4x.tasks.readers import read_labelled
from bert4x.tasks.text_classification import TextClassification

TOY = Path(__file__).parent / "data/toy_sentiment.tsv"


@dataclass
class Arguments(recipe.Arguments):
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 4, "batch_size": 8, "learning_rate": 5e-4}

    model: str | None = recipe.option(None, "the teacher: a run of another recipe; default: one of toy data")
    output: Path = recipe.option(Path("runs/distillation"), "folder of the run")
    method: Literal["states", "theseus", "alone"] = recipe.option("states", "how the student learns")
    layers: int | None = recipe.option(None, "of the student; default: half of the teacher's", least=1)
    share: float = recipe.option(
        0.5, "of the loss: the teacher's answers, the rest the labels", only={"method": ("states",)}, least=0
    )
    start: float = recipe.option(
        0.5, "share of layers that are replaced at first", only={"method": ("theseus",)}, above=0
    )


def main(args):
    with recipe.Run(args) as run:
        # 1. The teacher, and the rows of its task.
        folder = Path(args.model or train_teacher(args))
        teacher = task_class(read_task(folder)[0]).load(folder, dtype=args.precision)
        form = form_of(teacher.name)
        train, valid = run.data(lambda path: form.rows(teacher, path, Columns(), run.say), TOY)

        # 2. A student with fewer layers: some of the teacher's, evenly chosen.
        layers = args.layers or max(1, teacher.config.num_hidden_layers // 2)
        student = student_of(teacher, layers)
        run.say(f"{teacher.config.num_hidden_layers} layers of the teacher, {layers} of the student")
        before = student.evaluate(valid)

        # 3. Training: the weights of the epoch that scores best are kept.
        updates = min(args.max_steps or 10**9, args.epochs * -(-len(train) // args.batch_size))
        learner = {
            "states": lambda: FromStates(student, teacher, args.share),
            "theseus": lambda: InPlace(student, teacher, updates, args.start),
            "alone": lambda: None,
        }[args.method]()
        report = run.fit(student, train, valid, learner)

        # 4. What was kept, and what was gained.
        lines = ["| | score | parameters | seconds |", "|---|---|---|---|"]
        lines += [row("teacher", teacher, valid), f"| student, untrained | {before[student.best]:.4f} | | |"]
        lines += [row(f"student, {args.method}", student, valid)]
        run.say("\n".join(lines))
        (run.folder / "table.md").write_text("\n".join(lines) + "\n", "utf-8")
        return report


def row(name, task, valid) -> str:
    """A line of the table; the seconds are those of scoring all rows, compiled before."""
    task.evaluate(valid)
    began = time.perf_counter()
    score = task.evaluate(valid)[task.best]
    return f"| {name} | {score:.4f} | {task.model.count_params():,} | {time.perf_counter() - began:.2f} |"


def train_teacher(args) -> Path:
    """A classifier of the toy data."""
    args = dataclasses.replace(args, output=args.output / "teacher", layers=None)
    with recipe.Run(args) as run:
        rows, valid = run.data(lambda path: read_labelled(path, say=run.say), TOY)
        task = TextClassification(run.load(), sorted({label for _, label in rows}), maxlen=args.max_length)
        run.fit(task, rows, valid)
    return args.output


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
