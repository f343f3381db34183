"""How a text becomes the ids a model continues, and which tokens end what it writes."""

from bert4x.errors import GenerationError, TokenizerError, similar
from bert4x.tokenizers import BpeTokenizer, CpmTokenizer, SpTokenizer, TokenizerBase

_WORD_START = "\u2581"  # SentencePiece's mark of a space


def encode_prompt(tokenizer: TokenizerBase, application: str, bare: bool, text: str) -> list[int]:
    """The ids that `text` begins a sequence with.

    application "unilm": `[CLS] text [SEP]`, all of segment 0; what is generated has segment 1. "lm" of a BERT:
    `[CLS] text`, as it was trained left to right. `bare`, as for GPT2 and CPM-LM: the text alone; a
    line break is [8, 3] in both vocabularies of CPM-LM.

    Raises: GenerationError for a text without a single token, a model without tokenizer, an application that
    does not generate.
    """
    if application not in ("lm", "unilm"):
        raise GenerationError(
            f"application={application!r} cannot generate text; load the model with application='lm' or 'unilm'"
        )
    if tokenizer is None:
        raise GenerationError("this model has no tokenizer; set model.tokenizer, or give ids to generate_ids")
    if not isinstance(text, str):
        raise GenerationError(f"a prompt is a str, not {type(text).__name__}; ids go to generate_ids")
    ids = plain_ids(tokenizer, text)
    if not ids:
        raise GenerationError(f"the prompt {text!r} has no token; give at least one character to continue")
    if bare:
        return ids
    start = [] if tokenizer.start_id is None else [tokenizer.start_id]
    end = [] if tokenizer.end_id is None or application == "lm" else [tokenizer.end_id]
    return start + ids + end


def plain_ids(tokenizer: TokenizerBase, text: str) -> list[int]:
    """Ids of a text without the tokenizer's start and end tokens."""
    ids = tokenizer.encode(text)[0]
    return ids[tokenizer.start_id is not None : len(ids) - (tokenizer.end_id is not None)]


def choice_ids(tokenizer: TokenizerBase, application: str, prompt: str, choice: str) -> list[int]:
    """Ids of `choice` as the continuation of `prompt`, such that both together are encoded as the joint text is.

    Where the joint text is cut into tokens across the boundary, and for "unilm", whose target is a text of its own,
    they are the choice's own ids; SentencePiece's mark of a word's start is then left out, unless the choice
    begins with a space or the model is CPM-LM, where it stands between any two words.

    Raises: GenerationError for a choice without a single token.
    """
    if not isinstance(choice, str):
        raise GenerationError(f"a choice is a str, not {type(choice).__name__}")
    before, joint = plain_ids(tokenizer, prompt), plain_ids(tokenizer, prompt + choice)
    if application == "lm" and len(joint) > len(before) and joint[: len(before)] == before:
        return joint[len(before) :]
    ids = plain_ids(tokenizer, choice)
    marks_words = isinstance(tokenizer, SpTokenizer) and not isinstance(tokenizer, CpmTokenizer)
    if marks_words and ids and not choice.startswith(" "):
        ids = _without_word_start(tokenizer, ids)
    if not ids:
        raise GenerationError(f"the choice {choice!r} has no token; choices must differ in what a model can write")
    return ids


def _without_word_start(tokenizer: SpTokenizer, ids: list[int]) -> list[int]:
    first = tokenizer.id_to_token(ids[0])
    rest = first.removeprefix(_WORD_START)
    if rest == first:
        return ids
    if not rest:
        return ids[1:]
    return [tokenizer.token_dict[rest], *ids[1:]] if rest in tokenizer.token_dict else ids


def default_stop_ids(tokenizer: TokenizerBase | None) -> tuple[int, ...]:
    """The tokens a model ends a text with: those of its generation_config.json, else [SEP], CPM-LM's <eod>, GPT2's
    <|endoftext|>, what the files call eos_token; () when there is none.
    """
    if isinstance(tokenizer, CpmTokenizer):
        return (tokenizer.eod_id,)
    if tokenizer is not None and tokenizer.stop_ids:
        return tokenizer.stop_ids
    end = getattr(tokenizer, "end_id", None)
    if end is None and isinstance(tokenizer, BpeTokenizer):
        end = tokenizer.eos_id
    if end is None and isinstance(tokenizer, SpTokenizer):
        eos = tokenizer.sp_model.eos_id()
        end = eos if eos >= 0 else None
    if end is None and tokenizer is not None:
        end = tokenizer.token_dict.get(tokenizer.special_names.get("eos_token"))
    return () if end is None else (end,)


def stop_id(tokenizer: TokenizerBase, token: str | int) -> int:
    """The id of a stop token given by name, or by id.

    Raises: GenerationError when the vocabulary has no such token; it names those that look alike.
    """
    if isinstance(token, str):
        known = tokenizer.token_dict
        if token in known:
            return known[token]
        close = similar(token, known)[:3]
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise GenerationError(
            f"no token {token!r} among the {len(known)} of the vocabulary; {hint}text to stop at goes to stop="
        )
    try:
        tokenizer.id_to_token(int(token))
    except (TokenizerError, TypeError, ValueError) as error:
        raise GenerationError(f"stop token {token!r}: {error}") from error
    return int(token)
