"""What can be done with each family in each published layout, as their classes and tables say."""

from dataclasses import dataclass

from bert4x.checkpoints.tables import FORMATS
from bert4x.families import families

DECODING = ("lm", "unilm", "seq2seq")  # applications that write text


@dataclass(frozen=True)
class Ability:
    """A family in a layout: whether it is read, and written; the applications that write text; the heads of tasks that
    the layout has room for.
    """

    family: str
    layout: str
    reads: bool
    writes: bool
    decodes: tuple[str, ...]
    heads: tuple[str, ...]


def abilities() -> list[Ability]:
    """Those of all families that were published, of users too. Our own formats hold every family, and every task."""
    found = []
    for name, family in families().items():
        decodes = tuple(application for application in family.applications if application in DECODING)
        for layout in dict.fromkeys(table.format for table in family.tables):
            heads = {head.task for table in family.tables if table.format == layout for head in table.heads}
            found.append(Ability(name, layout, True, layout in FORMATS, decodes, tuple(sorted(heads))))
    return found
