"""Continue texts with a language model, in each of the usual ways to choose the next token, and compare the ways.

    python recipes/continue_text.py --smoke
    python recipes/continue_text.py --prompt "白日依山尽，" --ways nucleus beams --samples 3
    python recipes/continue_text.py --prompts openings.txt --model CPM-1-Generate --dtype bfloat16 --stream

Without --model it is the small model inside the package: trained on old and modern Chinese texts, it rhymes and scans,
and does not know what it says. A file of prompts has one a line.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

import bert4x
from bert4x import recipe
from bert4x.generation import Continuation, continuations

PROMPTS = ["白日依山尽，", "从前有一座山，山里有一座庙，", "第三十一条　"]
# Search finds likely texts, which are dull and, when long, repeat themselves; drawing from the whole distribution
# sooner or later takes a token that makes no sense. What lies between cuts the unlikely ones off (Holtzman et al.,
# arXiv 1904.09751).
WAYS = {
    "greedy": {},
    "beams": {"num_beams": 4, "length_penalty": 0.6},
    "whole": {"do_sample": True},
    "cooler": {"temperature": 0.7},
    "top-k": {"top_k": 20},
    "nucleus": {"top_p": 0.9},
    "min-p": {"min_p": 0.1, "temperature": 1.2},
}


@dataclass
class Arguments:
    smoke_values: ClassVar[dict[str, Any]] = {
        "ways": ("greedy", "nucleus"), "samples": 2, "max_new_tokens": 12, "stream": True,
    }  # fmt: skip

    model: str | None = recipe.option(None, "a checkpoint; default: the model inside the package")
    dtype: str | None = recipe.option(None, "of its weights, such as bfloat16")
    quantize: Literal["int8"] | None = recipe.option(None, "a quarter of float32's memory")
    prompt: tuple[str, ...] = recipe.option((), "texts to continue")
    prompts: Path | None = recipe.option(None, "or a file of them, one a line")
    ways: tuple[Literal[*WAYS], ...] = recipe.option(tuple(WAYS), "to compare")
    samples: int = recipe.option(2, "texts for each prompt, of the ways that draw", least=1)
    max_new_tokens: int = recipe.option(64, "of a continuation", least=1)
    repetition_penalty: float = recipe.option(1.0, "above 1: what was said becomes less likely", above=0)
    no_repeat_ngram_size: int = recipe.option(0, "no run of so many tokens comes twice", least=0)
    stream: bool = recipe.option(False, "first show one text of the first way while it is written")
    backend: Literal["tensorflow", "jax", "torch"] | None = recipe.option(None, "of Keras")
    seed: int = recipe.option(0, "of what is drawn", least=0)
    smoke: bool = recipe.option(False, "a few tokens of two ways: does it run?")


def read_prompts(args) -> list[str]:
    """Those of the command line, of the file, or else our own."""
    lines = args.prompts.read_text(encoding="utf-8").splitlines() if args.prompts else []
    return [line for line in [*args.prompt, *lines] if line.strip()] or PROMPTS


def options_of(way: str, args) -> dict:
    """What `generate` is told. The seed belongs to the ways that draw: given to another it would make it draw too."""
    options = WAYS[way] | {
        "max_new_tokens": args.max_new_tokens,
        "repetition_penalty": args.repetition_penalty,
        "no_repeat_ngram_size": args.no_repeat_ngram_size,
    }
    draws = bert4x.GenerationOptions(**options).samples
    return options | ({"seed": args.seed, "num_return_sequences": args.samples} if draws else {})


def show_stream(lm, prompt: str, options: dict) -> None:
    """One text, piece by piece; beams cannot be streamed, since which one wins is known at the end only."""
    of_several = ("num_return_sequences", "num_beams", "length_penalty")
    options = {name: value for name, value in options.items() if name not in of_several}
    print(prompt, end="", flush=True)
    for piece in lm.stream(prompt, **options):
        print(piece.text, end="", flush=True)
    print(
        f"\n[{piece.finish_reason}, {piece.tokens_per_second:.0f} tokens/s, the compiling of a first call included]\n"
    )


def continue_all(lm, prompts: list[str], options: dict) -> tuple[list[list[Continuation]], float]:
    """The continuations of all prompts in one batch, and how long they take once everything is compiled."""
    continuations(lm, prompts, **options)
    start = time.perf_counter()
    found = continuations(lm, prompts, **options)
    return found, time.perf_counter() - start


def distinct_pairs(texts: list[str]) -> float:
    """How many of the pairs of neighbouring characters are different ones (Li et al. 2016, arXiv 1510.03055)."""
    pairs = [text[i : i + 2] for text in texts for i in range(len(text) - 1)]
    return len(set(pairs)) / max(len(pairs), 1)


def main(args):
    lm = bert4x.load(args.model, application="lm", dtype=args.dtype, quantize=args.quantize)
    prompts, rows = read_prompts(args), []
    if args.stream:
        show_stream(lm, prompts[0], options_of(args.ways[0], args))
    for way in args.ways:
        found, seconds = continue_all(lm, prompts, options_of(way, args))
        print(f"== {way}")
        for prompt, group in zip(prompts, found, strict=True):
            print("\n".join(f"{prompt} | {one.text}" for one in group))
        every = [one for group in found for one in group]
        tokens = sum(len(one.token_ids) for one in every)
        likely = np.mean([value for one in every for value in one.log_probabilities])
        ended = np.mean([one.finish_reason == "stop" for one in every])
        speed, variety = tokens / seconds, distinct_pairs([one.text for one in every])
        rows.append(f"| {way} | {len(every)} | {tokens} | {speed:.0f} | {likely:.2f} | {variety:.0%} | {ended:.0%} |")
    print("\n| way | texts | tokens | tokens/s | log p a token | distinct pairs | came to an end |")
    print("\n".join(["|---|---|---|---|---|---|---|", *rows]))


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
