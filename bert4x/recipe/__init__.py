"""What all recipes share: arguments, a run folder, training that can be killed and resumed, a summary.

In short:

    @dataclass
    class Arguments(recipe.Arguments):
        topics: Path | None = recipe.option(None, "file of topics")

    def main(args):
        with recipe.Run(args) as run:
            train, valid = run.data(read_tsv, TOY)
            task = TextClassification(run.load(), labels, maxlen=args.max_length)
            run.fit(task, train, valid)

    if __name__ == "__main__":
        recipe.run(main, Arguments, __doc__)
"""

from bert4x.recipe.arguments import PRECISIONS, SMOKE, Arguments, FromNothing, run
from bert4x.recipe.folder import alone, write_json
from bert4x.recipe.running import Report, Run, distribution
from bert4x.training.command_line import option, parse

__all__ = [
    "PRECISIONS",
    "SMOKE",
    "Arguments",
    "FromNothing",
    "Report",
    "Run",
    "alone",
    "distribution",
    "option",
    "parse",
    "run",
    "write_json",
]
