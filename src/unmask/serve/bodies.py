"""The bodies of requests."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Texts = str | Annotated[list[str], Field(min_length=1)]


class Body(BaseModel):
    """What every request says. A key that is not known is refused: it would do nothing."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: str
    user: str | None = None


class StreamOptions(BaseModel):
    include_usage: bool = False
    include_obfuscation: bool | None = None


class Writing(Body):
    """How to write; what is not named is as the model's generation_config.json says.

    Attributes:
        max_tokens: of each result, its end included; 64 where nobody says.
        temperature: above it tokens are drawn; below 0.01 the likeliest is taken.
        seed: result number k of a request is drawn with seed + k.
        n: results for each prompt.
        decoder_prefix: what the answer begins with; it is not part of the limit.
        presence_penalty, frequency_penalty, best_of, echo, suffix: known for clients that always send them; only what
            changes nothing.
    """

    max_tokens: int | None = Field(None, ge=1)
    min_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1_000_000)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    no_repeat_ngram_size: int | None = Field(None, ge=0)
    num_beams: int | None = Field(None, ge=1, le=16)
    seed: int | None = Field(None, ge=0, lt=2**62)
    n: int = Field(1, ge=1)
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    decoder_prefix: str = ""
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    suffix: None = None
    logprobs: Literal[False] | None = None

    @property
    def stops(self) -> list[str]:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in stops if stop]


class Completion(Writing):
    prompt: Texts


class Part(BaseModel):
    type: Literal["text"]
    text: str


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    name: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class Chat(Writing):
    """Messages that become one text for the encoder (`prompt`)."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: int | None = Field(None, ge=1)

    @property
    def prompt(self) -> str:
        """The messages, a line each; in a longer conversation each turn with its role before it."""
        turns = [message for message in self.messages if message.role in ("user", "assistant")]
        if len(turns) <= 1:
            return "\n".join(message.text for message in self.messages)
        return "\n".join(
            f"{message.role}: {message.text}" if message.role in ("user", "assistant") else message.text
            for message in self.messages
        )


class Embedding(Body):
    input: Texts
    encoding_format: Literal["float", "base64"] = "float"


class Detection(Body):
    input: Texts


class Filling(Body):
    """Texts with gaps, `___` each.

    Attributes:
        max_tokens: (T5) of all gaps of a text together.
        at_least, at_most: (ELECTRA) tokens of a gap.
        alternatives: (ELECTRA, at_most 1) how many proposals to name for each gap.
        stream: (T5, one text) events with the gaps as far as they are written, after each token.
    """

    input: Texts
    max_tokens: int = Field(64, ge=1)
    at_least: int = Field(1, ge=1, le=32)
    at_most: int = Field(8, ge=1, le=32)
    alternatives: int = Field(5, ge=1, le=50)
    stream: bool = False


class Rounds(Body):
    """A text that an ELECTRA pair continues; see `unmask.generation.refinement.Refinement`.

    Attributes:
        max_tokens: how many are written.
        stream: events, one before each pass of the generator.
    """

    input: str
    stream: bool = False
    max_tokens: int = Field(12, ge=1, le=256)
    rounds: int = Field(8, ge=1, le=64)
    revisions: int = Field(2, ge=0, le=16)
    judged: bool = False


class Pair(BaseModel):
    model_config = ConfigDict(extra="forbid")

    source: str
    target: str


class Pairs(Body):
    input: Pair | Annotated[list[Pair], Field(min_length=1)]


class Rows(Body):
    """Rows of the task that the model has learnt: an object with its columns, or a text where it has one."""

    input: str | dict[str, Any] | Annotated[list[str | dict[str, Any]], Field(min_length=1)]


class Explanation(Body):
    """A text to explain a model by; of a model that has learnt a task a row of it, as in `Rows`.

    Attributes:
        target: T5: the text to explain instead of what it writes; a classifier: the label instead of the likeliest.
        place: ELECTRA's discriminator or generator: the token to explain, from 0 in `tokens` of the answer; by default
            the most suspicious, or the first gap.
        steps: points of each integral.
        max_tokens: (T5) of what is written.
    """

    input: str | dict[str, Any]
    target: str | None = None
    place: int | None = Field(None, ge=0)
    steps: int = Field(32, ge=1, le=256)
    max_tokens: int = Field(32, ge=1, le=256)
