"""The checkpoint tables by themselves: each variable once, each tensor once, and what is saved loads as it was."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from make_checkpoints import FAMILIES, LAYOUTS, config_of

from bert4x.checkpoints.keras_names import class_of
from bert4x.checkpoints.spec import Layout, Rule, Table
from bert4x.checkpoints.tables import FORMATS, most_layers, own_table, published, table_for, variables
from bert4x.errors import ConversionError
from bert4x.families import family_of

SIZES = {
    "small": {},
    "other": {
        "vocab_size": 66, "num_hidden_layers": 11, "num_attention_heads": 12, "hidden_size": 84, "max_position": 31,
        "attention_head_size": 5, "attention_key_size": 4, "intermediate_size": 48,
    },
}  # fmt: skip
PUBLISHED = published()
TABLES = [*PUBLISHED, *(own_table(format, config_of(family)) for format in ("bert4x", "keras") for family in FAMILIES)]


def name_of(table):
    return f"{table.format}-{table.family}-{table.rules[0].theirs.split('/')[0]}"


@pytest.fixture(params=SIZES)
def sizes(request):
    return SIZES[request.param]


@pytest.fixture(params=TABLES, ids=name_of)
def table(request, sizes):
    table = request.param
    # tables of our own layouts are made for one config, all others for any
    return own_table(table.format, config_of(table.family, **sizes)) if table not in PUBLISHED else table


def fitting(table, sizes):
    """A config of the sizes that is written by the table."""
    fields = family_of(table.family).config_class.names()
    for changes in ({}, {"gated": False}, {"as_mt5": True}, {"legacy": False}):
        if not changes.keys() <= set(fields):
            continue
        config = config_of(table.family, **sizes, **changes)
        if table.fits is None or table.fits(config):
            return config
    raise AssertionError(f"no config fits {name_of(table)}")


def entries_of(table, config):
    """Those that are about variables of the config: BERT's tables also know a mapping for factorised embeddings."""
    known = variables(config)
    return [
        entry for entry in table.sized(config).entries(most_layers(config)) if all(path in known for path in entry.ours)
    ]


def test_every_variable_once_and_nothing_twice(table, sizes):
    config = fitting(table, sizes)
    entries = entries_of(table, config)
    ours = Counter(path for entry in entries for path in entry.ours)
    assert ours == Counter(path for path, (_, head) in variables(config).items() if head not in table.lacks)
    assert not [name for name, count in Counter(entry.theirs for entry in entries).items() if count > 1]
    left_out = {path for entry in table.entries(most_layers(config)) for path in entry.ours} - set(ours)
    absent = [pattern for pattern, is_absent in family_of(table.family).absent.items() if is_absent(config)]
    absent.append("Decoder-Transformer-")  # of tables, those as deep as the encoder's
    assert all(any(re.match(pattern, path) for pattern in absent) for path in left_out)


def test_names_are_canonical(table, sizes):
    """No alias, buffer pattern or tied copy may catch a tensor that the table itself writes."""
    config = fitting(table, sizes)
    for entry in table.entries(most_layers(config)):
        assert table.canonical_name(entry.theirs) == entry.theirs
        assert not table.is_ignored(entry.theirs)
        assert entry.theirs not in table.tied or entry.ours[0].startswith(("LM-Head", "Decoder-Output-LM"))
        for pattern, _ in table.foreign:
            assert pattern not in entry.theirs


def test_save_then_load(table, sizes):
    config = fitting(table, sizes)
    shapes = {path: shape for path, (shape, _) in variables(config).items()}
    generator = np.random.default_rng(0)
    for entry, ranks in itertools.product(entries_of(table, config), (1, 2, 3) if table.sharded else (1,)):
        ours_shapes = [shapes[path] for path in entry.ours]
        ours = [generator.standard_normal(shape).astype("f4") for shape in ours_shapes]
        if entry.layout.axes and not entry.layout.divides(ours_shapes, ranks):
            continue  # halves of an odd size
        assert entry.layout.divides(ours_shapes, ranks)
        theirs = [entry.layout.save(ours, rank, ranks) for rank in range(ranks)]
        assert {tensor.shape for tensor in theirs} == {entry.layout.shape(ours_shapes, ranks)}
        loaded = entry.layout.load(theirs, ours_shapes)
        for before, after in zip(ours, loaded, strict=True):
            assert before.shape == after.shape
            assert np.array_equal(before, after), entry
        again = [entry.layout.save(loaded, rank, ranks) for rank in range(ranks)]
        assert all(np.array_equal(a, b) for a, b in zip(theirs, again, strict=True))


def test_layouts_by_hand():
    """What the words of the table language mean, written out once in NumPy."""
    q, k, v = (np.arange(24.0).reshape(4, 6) + 100 * i for i in range(3))
    fused = Layout(transpose=True, shard=-1)
    for rank in range(2):
        columns = slice(3 * rank, 3 * rank + 3)
        expected = np.concatenate([q[:, columns], k[:, columns], v[:, columns]], 1).T
        assert np.array_equal(fused.save([q, k, v], rank, 2), expected)
    rows = Layout(transpose=True, shard=0)
    assert np.array_equal(rows.save([q], 1, 2), q[2:].T)
    assert np.array_equal(Layout(shard=0).save([q], 1, 2), q[2:])
    assert np.array_equal(Layout(lead=True).save([q, k]), np.concatenate([q, k], 1)[None])
    assert np.array_equal(Layout(transpose=True).save([q]), q.T)
    heads = np.arange(12.0).reshape(2, 6)  # 3 heads of 2 features; below, 3 parts of each of 2
    llama = Layout(transpose=True, axes=(1, 2, -1), order=(0, 2, 1))  # [a, b, c, d, e, f] -> [a, d, b, e, c, f]
    assert np.array_equal(llama.save([heads]), heads.T[[0, 3, 1, 4, 2, 5]])
    megatron = Layout(transpose=True, shard=-1, axes=(3, -1, 2), order=(1, 0, 2))  # q|k|v -> those of each head
    expected = np.concatenate([x[:, 2 * head : 2 * head + 2] for head in range(3) for x in (q, k, v)], 1).T
    assert np.array_equal(megatron.save([q, k, v]), expected)
    assert all(np.array_equal(a, b) for a, b in zip(megatron.load([expected], [q.shape] * 3), (q, k, v), strict=True))
    assert not fused.divides([(4, 6)] * 3, 4) and not rows.divides([(5, 6)], 2) and Layout().divides([(5, 7)], 2)


def test_large_transposes():
    """Those are copied tile by tile; the last tiles are not whole."""
    generator = np.random.default_rng(0)
    ours = [generator.standard_normal((300, 290)).astype("f4") for _ in range(3)]
    layout = Layout(transpose=True, shard=-1)
    theirs = [layout.save(ours, rank, 2) for rank in range(2)]
    assert np.array_equal(theirs[1], np.concatenate([x[:, 145:] for x in ours], 1).T)
    for before, after in zip(ours, layout.load(theirs, [x.shape for x in ours]), strict=True):
        assert np.array_equal(before, after)


def test_alternatives_are_taken_in_step():
    table = Table("x", "y", (Rule("A-{i}/{b,c}/{d,e}", "{i:02d}.{x,y}.{u,v}"), Rule("[f,g]/h", "fg")), "")
    names = {entry.ours: entry.theirs for entry in table.entries(2)}
    assert names == {
        ("A-0/b/d",): "00.x.u", ("A-0/b/e",): "00.x.v", ("A-0/c/d",): "00.y.u", ("A-0/c/e",): "00.y.v",
        ("A-1/b/d",): "01.x.u", ("A-1/b/e",): "01.x.v", ("A-1/c/d",): "01.y.u", ("A-1/c/e",): "01.y.v",
        ("f/h", "g/h"): "fg",
    }  # fmt: skip
    with pytest.raises(ValueError):
        Table("x", "y", (Rule("{a,b}", "c"),), "").entries(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_table_of_every_format(family):
    config = config_of(family)
    for format in FORMATS:
        written = LAYOUTS["albert" if family == "albert_unshared" else family]
        written = (*written, "gguf") if family in ("bert", "gpt2") else written  # where nothing but sizes is said
        if format not in written:
            published = ", ".join(sorted(set(written) - {"bert4x", "keras"}))
            with pytest.raises(ConversionError, match=f"no {format} layout of {family.split('_')[0]}.*{published}"):
                table_for(format, config)
        else:
            assert table_for(format, config).format == format


@pytest.mark.parametrize("family", FAMILIES)
def test_variables_are_those_of_the_keras_model(family):
    """Paths, shapes, and the order of the layers of one class: .weights.h5 numbers layers by it."""

    def by_class(items):
        return sorted(items, key=lambda item: class_of(item[0].split("/")[0], family))

    heads = {"with_mlm": "linear"} | ({} if family in ("gpt2", "transformer") else {"with_nsp": "linear"})
    for changes in ({}, {"segment_vocab_size": 0}, {"attention_key_size": 3}):
        config = config_of(family, **changes)
        cls = family_of(family)
        model = cls(config, cls.applications[0], **heads).build().model
        found = [(v.path, tuple(v.shape)) for v in model.variables if "seed_generator" not in v.path]
        assert by_class(found) == by_class((path, shape) for path, (shape, _) in variables(config).items())
