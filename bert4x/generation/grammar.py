"""Texts that keep to a form: one of some choices, a regular expression, a JSON schema. Tokens that cannot lead to it
are forbidden at each step, by llguidance, which knows for each place of a grammar what may follow.
"""

import codecs
import json
import re
import weakref
from collections.abc import Sequence

import numpy as np

from bert4x.errors import GenerationError
from bert4x.generation.batch import Prompt
from bert4x.generation.detokenize import byte_characters
from bert4x.generation.options import GenerationOptions
from bert4x.generation.output import Output, outputs
from bert4x.tokenizers import BackendTokenizer, BpeTokenizer, SpTokenizer, Tokenizer

BYTE = "<0x"  # begins a piece of SentencePiece that is one byte


class Spelling:
    """What the tokens of a vocabulary spell, as llguidance asks for it; the token after the last one is the end.

    Raises: GenerationError without llguidance.
    """

    bos_token_id = None

    def __init__(self, tokenizer, size: int):
        try:
            import llguidance
        except ImportError as error:
            raise GenerationError("choices, regex and json_schema need llguidance: pip install llguidance") from error
        self.texts, self.eos_token_id, self.special_token_ids = spelled(tokenizer, size), size, [size]
        self.tokens = [*self.texts, b"<end>"]
        self.characters = {char for text in self.texts for char in text.decode("utf-8", "ignore")}
        self.has_bytes = len({text for text in self.texts if len(text) == 1}) >= 256 - 13  # 13 are in no UTF-8
        self.known = llguidance.LLTokenizer(llguidance.TokenizerWrapper(self), n_vocab=size + 1)

    def __call__(self, text: bytes) -> list[int]:
        raise NotImplementedError("nothing is forced, so no text has to be divided in tokens")


_SPELLINGS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # tokenizer -> size -> its spelling


def spelling_of(tokenizer, size: int) -> Spelling:
    """The spelling of a vocabulary, made once: it takes a second for a large one. Raises: GenerationError"""
    if tokenizer is None:
        raise GenerationError("choices, regex and json_schema need a vocabulary, and this model has none")
    held = _SPELLINGS.setdefault(tokenizer, {})
    if size not in held:
        held[size] = Spelling(tokenizer, size)
    return held[size]


class Form:
    """A form of texts over a vocabulary, to be followed by any number of texts.

    Args:
        tokenizer: of the model; a text is what its tokens spell one after the other, without spaces in between.
        size: rows of the model's table.
        options: with `choices`, `regex` or `json_schema`.

    Raises: GenerationError for a form that is none, that the vocabulary cannot spell, or without llguidance.
    """

    def __init__(self, tokenizer, size: int, options: GenerationOptions):
        self.spelling, self.size, self.stop_ids = spelling_of(tokenizer, size), size, list(options.stop_ids or ())
        for choice in () if self.spelling.has_bytes else options.choices:
            if missing := [char for char in choice if char not in self.spelling.characters]:
                raise GenerationError(f"choices has {choice!r:.60}, and the vocabulary no token with {missing[0]!r}")
        self.never = np.zeros(size, bool)
        self.never[list(options.suppress_ids)] = True
        self.grammar = grammar_of(options)
        if said := " ".join(self.matcher().get_error().split()):
            raise GenerationError(f"{options.form} is no form that can be followed: {said:.200}")

    def matcher(self):
        """The form at its beginning, as llguidance follows it."""
        import llguidance

        return llguidance.LLMatcher(self.spelling.known, self.grammar)

    def text(self, ids: Sequence[int]) -> str:
        """What ids spell, stop tokens left out."""
        return b"".join(self.bytes_of(i) for i in ids).decode("utf-8", "replace")

    def bytes_of(self, token_id: int) -> bytes:
        """What a token adds to a text: nothing, where it ends it."""
        return b"" if token_id < 0 or token_id in self.stop_ids else self.spelling.texts[token_id]


class Guide:
    """One text on its way through a form: what may follow, and whether it has ended.

    `add` and `finish` give the text as it is written, as those of `Detokenizer` do.
    """

    stopped = None  # by no string

    def __init__(self, form: Form):
        self.form, self.matcher, self.has_ended = form, form.matcher(), False
        self.known: np.ndarray | None = None  # what may follow, once it was asked for
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def allowed(self) -> np.ndarray:
        """What may follow. Shape: -> (V,) bool"""
        if self.known is None:
            from llguidance import numpy as masks

            size = self.form.size
            bits = masks.allocate_token_bitmask(1, size + 1)
            masks.fill_next_token_bitmask(self.matcher, bits, 0)
            found = np.unpackbits(bits.view("uint8"), bitorder="little")[: size + 1].astype(bool)
            found[self.form.stop_ids] = found[size]  # the end
            self.known = found[:size] & ~self.form.never
        return self.known

    def follow(self, token_id: int) -> None:
        """Goes on by a token, -1 where there was none. A text ends by a stop token; where there is none, as soon as it
        may end; and where nothing but the end may follow.
        """
        stop_ids = self.form.stop_ids
        if token_id < 0 or token_id in stop_ids:
            self.has_ended = True
            return
        self.matcher.consume_token(token_id)
        self.known, self.has_ended = None, self.matcher.is_stopped()
        if not self.has_ended and self.is_whole:
            self.has_ended = not stop_ids or not np.delete(self.allowed(), stop_ids).any()

    @property
    def is_whole(self) -> bool:
        """Whether the text may end here."""
        return self.matcher.is_accepting()

    def add(self, token_id: int) -> str:
        """The characters that a token makes whole."""
        return self.decoder.decode(self.form.bytes_of(token_id))

    def finish(self) -> str:
        """The rest of the text: half of a character, where it was cut."""
        return self.decoder.decode(b"", True)


# Bytes that have to come are not written at once: in a vocabulary of whole characters, two that begin by the same byte
# would have a beginning that no token spells.
HEAD = '%llguidance {"no_forcing": true}\nstart: '


def grammar_of(options: GenerationOptions) -> str:
    """The grammar of a form, in Lark. Raises: GenerationError for a schema that is none."""
    if options.choices:
        return HEAD + " | ".join(json.dumps(one) for one in options.choices)
    if options.regex is not None:
        return HEAD + "/" + re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\/", options.regex) + "/"
    schema = options.json_schema
    try:
        schema = json.loads(schema) if isinstance(schema, str) else json.loads(json.dumps(schema))
    except (TypeError, ValueError, RecursionError) as error:
        raise GenerationError(f"json_schema is no JSON: {error}") from error
    if not isinstance(schema, dict):
        schema = {} if schema is True else {"not": {}}
    return HEAD + "%json " + json.dumps(schema | {"x-guidance": {"whitespace_flexible": False}})


def spelled(tokenizer, size: int) -> list[bytes]:
    """What each token spells; nothing for special ones, and for rows without a token."""
    backend, empty = isinstance(tokenizer, BackendTokenizer), set(tokenizer.ids_without_token(size))
    tokens = [None if i in empty else tokenizer.id_to_token(i) for i in range(size)]
    special = {i for i, token in enumerate(tokens) if token is not None and is_special(tokenizer, i, token)}
    by_bytes = isinstance(tokenizer, BpeTokenizer) or (backend and is_byte_level(tokens))
    of_byte = byte_characters()
    found = []
    for i, token in enumerate(tokens):
        if token is None or i in special:
            found.append(b"")
        elif by_bytes and all(char in of_byte for char in token):
            found.append(bytes(of_byte[char] for char in token))
        elif token.startswith(BYTE) and token.endswith(">") and len(token) == 6:
            found.append(bytes([int(token[3:5], 16)]))
        elif isinstance(tokenizer, Tokenizer):
            found.append((token[2:] if token.startswith("##") and len(token) > 2 else token).encode())
        elif isinstance(tokenizer, SpTokenizer) or backend:
            found.append(pieces_text(tokenizer, token).encode())
        else:
            found.append(token.encode())
    return found


def is_special(tokenizer, token_id: int, token: str) -> bool:
    """Whether a token says nothing by itself."""
    roles = ("start_id", "end_id", "pad_id", "unk_id", "mask_id")
    if token_id in [getattr(tokenizer, role, None) for role in roles]:
        return True
    known = getattr(tokenizer, "is_special", None)
    return known(token) if known is not None else not tokenizer.decode([token_id])


def is_byte_level(tokens: Sequence[str | None]) -> bool:
    """Whether tokens are written in characters of bytes: a space is then Ġ."""
    return any(token is not None and token.startswith("Ġ") for token in tokens)


def pieces_text(tokenizer, token: str) -> str:
    """What a piece of SentencePiece says amid a text: CPM's has signs of its own for spaces and lines."""
    if isinstance(tokenizer, SpTokenizer):
        return tokenizer.decode([], tokens=["x", token])[1:]
    return token.replace("▁", " ")


def decode_in_form(engine, prompts: Sequence[Prompt], options: GenerationOptions, form: Form) -> Output:
    """`Engine.decode`, one step at a time, with all tokens forbidden that cannot lead to the form. A row ends by a stop
    token; where there is none, as soon as its text may end.

    Raises: GenerationError where a text cannot go on, or has not come to its end after `max_new_tokens`.
    """
    ops, (search, prompt, given, rows) = engine.ops, engine.prepare(prompts, options)
    start, advance = engine.functions(search)
    guides = [Guide(form) for _ in range(rows)]

    def now(given):
        forbidden = np.zeros((int(given["lengths"].shape[0]), form.size), bool)
        for row, guide in enumerate(guides):
            if not guide.has_ended:
                forbidden[row] = ~guide.allowed()
        return given | {"suppressed": ops.convert_to_tensor(forbidden)}

    state = start(prompt, now(given))
    for step in range(1, options.max_new_tokens + 1):
        finished = np.array(ops.convert_to_numpy(state.finished))
        written = ops.convert_to_numpy(state.ids)[:rows, -search.room :]
        for row, guide in enumerate(guides):
            if not guide.has_ended:
                guide.follow(int(written[row, step - 1]))
                if guide.has_ended and not guide.is_whole:
                    raise stuck(f"prompt {row}", form.text(written[row]))
            finished[row] = guide.has_ended
        if finished[:rows].all() or step == options.max_new_tokens:
            break
        state = state._replace(finished=ops.convert_to_tensor(finished))
        state = advance(state, now(given), ops.convert_to_tensor(step + 1, "int32"))
    for row, guide in enumerate(guides):
        if not guide.is_whole:
            raise GenerationError(
                f"prompt {row}: after {options.max_new_tokens} tokens the text is not at an end that {options.form} "
                "allows; give more max_new_tokens"
            )
    return outputs(search, state, rows, options)


def stuck(which: str, text: str) -> GenerationError:
    """The error about a text that the vocabulary cannot go on with."""
    return GenerationError(
        f"{which}: after {text[-40:]!r} the vocabulary has no token that the form allows; it cannot spell what is "
        "wanted (upper case, for instance, where all is lower-cased)"
    )


def form_of(model, options: GenerationOptions) -> Form | None:
    """The form that the options ask for. Raises: GenerationError"""
    if not options.form:
        return None
    return Form(model.tokenizer, model.builder.config.vocab_size, options)
