"""Files of examples: in columns (TSV, CSV), in JSON, one token a line, SQuAD's JSON; plain or .xz, in UTF-8. DataFrames
of pandas, too.

Every reader raises DataError, naming file, row and column, for what it cannot read, and for a file without examples.
"""

from bert4x.tasks.readers.answers import read_answers
from bert4x.tasks.readers.compared import read_compared
from bert4x.tasks.readers.entities import read_bio, read_entities
from bert4x.tasks.readers.labelled import read_labelled, read_pairs
from bert4x.tasks.readers.squad import read_squad
from bert4x.tasks.readers.triples import read_triples

read_tsv = read_labelled  # its name from when it read nothing else

__all__ = [
    "read_answers",
    "read_bio",
    "read_compared",
    "read_entities",
    "read_labelled",
    "read_pairs",
    "read_squad",
    "read_triples",
    "read_tsv",
]
