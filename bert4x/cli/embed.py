"""The commands embed and similar: vectors of all texts of a file, and the texts that are nearest to one."""

import itertools
from pathlib import Path

from bert4x.cli.predict import add_text_column, progress, say
from bert4x.errors import CorruptFileError, DataError, InputError

PART = 4096  # texts that are read, sorted by length, and written together


def add_commands(command) -> None:
    """Adds them to a parser; `command(name, run, summary)` makes the parser of one."""
    sub = command("embed", run_embed, "write the vectors of all texts of a file, as an array of NumPy")
    sub.add_argument("input", metavar="IN", help="txt (a text a line), tsv, csv, jsonl or json")
    sub.add_argument("output", metavar="OUT.npy", help="(N, D); is gone on with if it is there")
    add_model(sub)
    sub.add_argument("--prompt", metavar="NAME", help="the model's prompt to put before each text")
    sub.add_argument("--dimensions", type=int, metavar="N", help="only the first N numbers of each vector")
    add_text_column(sub)
    sub = command("similar", run_similar, "the texts of a file that are nearest to a text")
    sub.add_argument("text", metavar="TEXT", help='such as "怎么申请退款"')
    sub.add_argument("corpus", metavar="CORPUS", help="txt (a text a line), tsv, csv, jsonl or json")
    add_text_column(sub)
    add_model(sub)
    sub.add_argument("--vectors", metavar="FILE.npy", help="of the corpus, that embed wrote")
    sub.add_argument("--top-k", type=int, default=5, metavar="N", help="how many (default: %(default)s)")


def add_model(sub) -> None:
    sub.add_argument("--model", metavar="MODEL", help="of sentence vectors, or an encoder: a folder or a name")
    sub.add_argument(
        "--batch-tokens", type=int, default=16384, metavar="N", help="computed at once (default: %(default)s)"
    )


def texts_of(path: str, options, say=say):
    """The texts of a file, one after the other. Raises: DataError, also for an empty one."""
    from bert4x.tasks.readers.labelled import read_texts

    rows = read_texts(path, header=options.header, text_column=options.text_column, say=say)
    for number, (text,) in enumerate(rows, 1):
        if not text.strip():
            raise DataError(f"{path}: text {number} is empty: there is nothing to make a vector of")
        yield text


def run_embed(options) -> int:
    """Writes the vectors, in the order of the texts, a part at a time. Raises: InputError"""
    from bert4x.tasks.embedder import embedder
    from bert4x.tasks.file_answers import alone, fingerprint
    from bert4x.tasks.vector_files import VectorFile

    path = Path(options.output)
    if path.suffix != ".npy":
        raise InputError(f"{path}: expected the name of a file that ends in .npy")
    total = sum(1 for _ in texts_of(options.input, options))
    if not total:
        raise InputError(f"{options.input} holds no texts")
    encode = embedder(options.model)
    size = encode.beginning(options.dimensions)
    made_of = {
        "input": fingerprint(Path(options.input)),
        "model": fingerprint(Path(options.model)) if options.model else "the small model of sentence vectors",
        "options": {"prompt": options.prompt, "dimensions": size, "text_column": options.text_column}
        | ({} if options.header is None else {"header": options.header}),
    }
    with alone(path), VectorFile(path, made_of, total, size) as file:
        if 0 < file.done < total:
            say(f"going on with {path} after {file.done:,} of {total:,} vectors")
        again = texts_of(options.input, options, say=lambda text: None)  # what is said of columns was said
        rest = itertools.islice(again, file.done, None)
        with progress(total, file.done) as observe:
            while some := list(itertools.islice(rest, PART)):
                file.add(encode(some, options.prompt, dimensions=size, batch_tokens=options.batch_tokens))
                observe(len(some))
    say(f"{total:,} vectors of {size} numbers in {path}")
    return 0


def run_similar(options) -> int:
    """Prints the nearest texts, each with how similar it is. Raises: InputError"""
    from bert4x.tasks.embedder import embedder

    corpus = list(texts_of(options.corpus, options))
    if not corpus:
        raise InputError(f"{options.corpus} holds no texts")
    encode = embedder(options.model)
    vectors = corpus
    if options.vectors:
        vectors = read_vectors(options.vectors)
        if len(vectors) != len(corpus):
            raise InputError(f"{options.vectors} has {len(vectors)} vectors, {options.corpus} {len(corpus)} texts")
    for index, score in encode.search(options.text, vectors, options.top_k, batch_tokens=options.batch_tokens):
        print(f"{score:.4f}  {corpus[index]}")
    return 0


def read_vectors(path: str):
    """The array that embed wrote, (N, D), as far as it is read. Raises: CorruptFileError, InputError"""
    import numpy as np

    from bert4x.tasks.vectors import as_vectors

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CorruptFileError(f"{path} cannot be read as an array of NumPy: {error}") from error
    return as_vectors(array, path)
