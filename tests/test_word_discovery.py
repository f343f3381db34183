"""Words found without a dictionary: counts and cuts against a slow count of the same, and planted words found again."""

import math
from collections import Counter

import numpy as np
import pytest

from bert4x import errors
from bert4x.tokenizers import word_discovery
from bert4x.tokenizers.word_discovery import WordDiscovery


def planted(lines=400, seed=0):
    """Lines of words drawn alike, of characters of which some are shared."""
    rng = np.random.default_rng(seed)
    words = ["天地", "玄黄", "宇宙洪", "日月盈昃", "辰宿列张寒来", "暑", "往", "地黄", "A1"]
    return ["".join(rng.choice(words, 12)) + "，" for _ in range(lines)]


def slow(texts, min_count, min_pmi):
    """The n-grams that are solid, by their definition."""
    counts = Counter()
    for text in texts:
        for run in text.replace("，", "\n").split("\n"):
            counts.update(run[i : i + n] for n in range(1, 5) for i in range(len(run) - n + 1))
    total = sum(count for gram, count in counts.items() if len(gram) == 1)

    def pmi(gram):
        return min(math.log(counts[gram] * total / counts[gram[:i]] / counts[gram[i:]]) for i in range(1, len(gram)))

    return {
        gram for gram in counts if len(gram) > 1 and counts[gram] >= min_count and pmi(gram) >= min_pmi[len(gram) - 2]
    }


@pytest.mark.parametrize("chunk", [1 << 20, 100])
def test_against_a_slow_count(monkeypatch, chunk):
    """Also where a corpus is counted piece by piece."""
    monkeypatch.setattr(word_discovery, "CHUNK", chunk)
    texts = planted()
    discovery = WordDiscovery(min_count=20, min_pmi=(1, 2, 3)).fit(texts)
    solid = slow(texts, 20, (1, 2, 3))
    for gram in {text[i : i + n] for text in texts for n in (2, 3, 4) for i in range(len(text) - n + 1)}:
        assert discovery.is_solid(gram) == (gram in solid), gram
    text = texts[0]
    assert "".join(discovery.cut(text)) == text
    cuts = {i for i in range(1, len(text)) if not any(
        text[a : a + n] in solid for n in (2, 3, 4) for a in range(max(i - n + 1, 0), min(i, len(text) - n + 1))
    )}  # fmt: skip
    found = np.cumsum([len(piece) for piece in discovery.cut(text)])[:-1].tolist()
    assert found == sorted(cuts)
    listed = discovery.words(texts)
    assert {"天地", "玄黄", "宇宙洪", "日月盈昃", "暑", "往"} <= set(listed)
    assert list(listed.values()) == sorted(listed.values(), reverse=True) and min(listed.values()) >= 20
    assert all(discovery.is_solid(word) for word in listed) and "，" not in listed


def test_odd_texts():
    discovery = WordDiscovery(min_count=1, min_pmi=(0, 0, 0)).fit(["", "天", "\ud800地，。 𠮷", "天地" * 3])
    assert discovery.cut("") == [] and discovery.cut("，。") == ["，。"]
    assert "".join(discovery.cut("天\ud800地 𠮷玄")) == "天\ud800地 𠮷玄"
    assert not discovery.is_solid("") and not discovery.is_solid("玄天")
    with pytest.raises(errors.InputError, match="no characters to count"):
        WordDiscovery().fit(["，。！", ""])
    with pytest.raises(errors.ConfigError, match="three numbers"):
        WordDiscovery(min_pmi=(1, 2))
