"""What requests may say. A field that is not here is refused, so that nothing is ignored without a word."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from bert4x.errors import nearest


def whole(text: str) -> str:
    """Raises: ValueError for half of a character, which JSON can spell and UTF-8 cannot."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("the text has half of a surrogate pair; send whole characters")
    return text


def no_ids(given: Any) -> Any:
    """Raises: ValueError for ids of tokens, which other servers take: those of another vocabulary mean other texts."""
    if isinstance(given, list) and any(isinstance(one, int | list) for one in given):
        raise ValueError("token ids are not taken; send texts (LangChain: check_embedding_ctx_length=False)")
    return given


def few(stop: str | list[str]) -> str | list[str]:
    """Raises: ValueError for too many strings to look for in each text."""
    if isinstance(stop, list) and len(stop) > 16:
        raise ValueError(f"{len(stop)} strings; at most 16 are taken")
    return stop


def pairs_at_most(given: Any) -> Any:
    """Raises: ValueError for more than two texts in one list, which is meant for a pair."""
    if isinstance(given, list) and len(given) > 2 and all(isinstance(one, str) for one in given):
        raise ValueError("two texts in a list are a pair; several inputs are [[text], [text], [text, second text]]")
    return given


def no_tools(given: list) -> list:
    """Raises: ValueError where there is one."""
    if given:
        raise ValueError("tools are not served; for an answer in JSON give response_format, with a schema")
    return given


def at_the_end(direction: str) -> str:
    """Raises: ValueError for another end than that at which long texts are cut."""
    if direction.lower() != "right":
        raise ValueError("long texts are cut at their end only; expected Right")
    return direction


Text = Annotated[str, AfterValidator(whole)]
Texts = Annotated[Text | list[Text], BeforeValidator(no_ids)]
Stop = Annotated[Text | list[Text], AfterValidator(few)]
Direction = Annotated[str, AfterValidator(at_the_end)]
Nothing = Annotated[list | dict, Field(max_length=0)]  # what may be there, and ask for nothing


class Body(BaseModel):
    """A request: JSON with these fields; null stands for what is not given."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def no_others(cls, data: Any) -> Any:
        """Names what an unknown field may be meant for."""
        if not isinstance(data, dict):
            return data
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for name in data:
            if name not in known:
                raise ValueError(f"no field {name!r:.80}; {nearest(str(name)[:80], known)}")
        return {name: value for name, value in data.items() if value is not None}


class Schema(Body):
    """The JSON schema of an answer, as OpenAI's clients send it; it is kept to, `strict` or not."""

    content: dict[str, Any] = Field(alias="schema")
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class Format(Body):
    """What an answer has to look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None


class Decoding(Body):
    """Options of writing: OpenAI's, and some of `bert4x.GenerationOptions`."""

    model: str
    n: int = Field(1, ge=1, le=128)
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = None
    seed: int | None = None
    stop: Stop | None = None
    stream: bool = False
    stream_options: "StreamOptions | None" = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    response_format: Format | None = None
    # As vLLM calls them: one of some texts, or what a regular expression matches.
    guided_choice: Annotated[list[Text], Field(min_length=1)] | None = None
    guided_regex: Text | None = None
    # Taken, where they ask for nothing: clients send them.
    frequency_penalty: Literal[0, 0.0] | None = None
    presence_penalty: Literal[0, 0.0] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: str | None = None


class StreamOptions(Body):
    """Of a stream."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Completion(Decoding):
    """Texts to be continued."""

    prompt: Texts
    max_tokens: int | None = Field(16, ge=1)
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool = False
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None


class TextPart(Body):
    """A part of a message; there are no others than texts."""

    type: Literal["text"]
    text: Text


class Message(Body):
    """One turn of a dialogue."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    name: str | None = None
    # What answers have, and clients send back with them.
    refusal: Literal[""] | None = None
    annotations: Nothing | None = None
    audio: Nothing | None = None
    function_call: Nothing | None = None
    tool_calls: Nothing | None = None

    def plain(self) -> dict[str, str]:
        """As templates take it."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class TemplateOptions(Body):
    """Variables of chat templates."""

    enable_thinking: bool


class Chat(Decoding):
    """A dialogue to be answered."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    chat_template_kwargs: TemplateOptions | None = None
    tools: Annotated[list, AfterValidator(no_tools)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    store: Literal[False] | None = None


class Embeddings(Body):
    """Texts whose vectors are wanted."""

    model: str
    input: Texts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    prompt_name: str | None = None
    truncate: bool = False
    user: str | None = None


class Cut(Body):
    """TEI: texts that are cut where they are too long, if the request says so."""

    truncate: bool = False
    truncation_direction: Direction = "Right"


class Embed(Cut):
    """TEI: texts whose vectors are wanted."""

    inputs: Texts
    normalize: bool = True
    prompt_name: str | None = None
    dimensions: int | None = None
    model: str | None = None


class Rerank(Cut):
    """TEI: texts to be put in order by how well they answer a query."""

    query: Text
    texts: list[Text]
    raw_scores: bool = False
    return_text: bool = False
    model: str | None = None


class Predict(Cut):
    """TEI: a text, a pair [text, text], or a list of lists of one or two texts, to be classified."""

    inputs: Annotated[Text | list[Text] | list[list[Text]], BeforeValidator(pairs_at_most)]
    raw_scores: bool = False
    parameters: Nothing | None = None  # Hugging Face's client sends it
    model: str | None = None


class TextsFor(Cut):
    """Hugging Face: texts for a task."""

    inputs: Texts
    parameters: dict[str, Any] = {}
    model: str | None = None


class Asked(Body):
    """A question on a text."""

    question: Text
    context: Text


class Question(Cut):
    """Hugging Face: a question whose answer is sought in a text."""

    inputs: Asked
    parameters: Nothing | None = None
    model: str | None = None


class Compared(Body):
    """A sentence and those that it is compared with."""

    source_sentence: Text
    sentences: list[Text]


class SimilarityOptions(Cut):
    """Of a comparison."""

    prompt_name: str | None = None


class Similarity(Body):
    """TEI: how similar sentences are to one."""

    inputs: Compared
    parameters: SimilarityOptions = SimilarityOptions()
    model: str | None = None


class Tokenize(Body):
    """TEI: texts to be divided in tokens."""

    inputs: Texts
    add_special_tokens: bool = True
    model: str | None = None


class Pair(Body):
    """A question and where its answer is sought; or two texts that are classified together."""

    question: Text
    passage: Text


class TaskInputs(Body):
    """Inputs of a task: texts, pairs of texts, or for reading a question with its passage, one or a list of them."""

    inputs: Text | Pair | list[Text | Pair | Annotated[list[Text], Field(min_length=2, max_length=2)]]
    parameters: dict[str, Any] = {}
    truncate: bool = False
    model: str | None = None
