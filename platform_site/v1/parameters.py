"""What a body asks for. What would change the answer and is not served is refused by its name; what would not is ignored.

The inference server checks the values themselves, and names the field that is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from django.conf import settings

from common.errors import Invalid
from common.text import one_line
from inference.actions import MAX_BATCH, Request
from inference.engine.request import MAX_STOP_STRINGS
from platform_site.v1.messages import messages_in

COMPLETION_TOKENS = 16
"""Where nobody says how many: OpenAI's own number."""

TOGETHER = {"model", "temperature", "top_p", "n", "stop", "seed", "stream", "stream_options", "max_tokens"}
SERVED = {"completions": TOGETHER | {"prompt"}, "chat": TOGETHER | {"messages", "max_completion_tokens"}}

IGNORED = {
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    *("prompt_cache_options", "prediction", "parallel_tool_calls"),
}
"""Notes to whoever serves it, and hints at how to be faster: the answer is the same without."""

_ZERO = (0, 0.0)
_TOGETHER: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": _ZERO,
    "presence_penalty": _ZERO,
    "logit_bias": ({},),
}
NEUTRAL: dict[str, dict[str, tuple[Any, ...]]] = {
    "completions": {**_TOGETHER, "logprobs": (), "best_of": (1,), "echo": (False,), "suffix": ("",)},
    "chat": {
        **_TOGETHER,
        "logprobs": (False,),
        "top_logprobs": (0,),
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},),
        "modalities": (["text"],),
        "audio": (),
        "reasoning_effort": (),
        "verbosity": (),
        "web_search_options": (),
        "moderation": (),
    },
}
"""Parameters that are not served, each with the values that ask for nothing, beside null."""


@dataclass(frozen=True)
class Asked:
    """What a body asks for: of one model, one request for each choice."""

    model: str
    requests: tuple[Request, ...]
    stream: bool
    include_usage: bool
    names: Mapping[str, str]
    """What a field of a request is called here, where that is otherwise."""


def completions(body: bytes) -> Asked:
    """Raises Invalid, which names the parameter."""
    given = _served(body, "completions")
    prompts = _prompts(given.get("prompt"))
    most = _whole("max_tokens", given.get("max_tokens"), COMPLETION_TOKENS)
    requests = [_request(given, prompt=prompt, max_new_tokens=most) for prompt in prompts]
    return _asked(given, requests, len(body), {"max_new_tokens": "max_tokens"})


def chat(body: bytes) -> Asked:
    """Raises Invalid, which names the parameter."""
    given = _served(body, "chat")
    messages = messages_in(given.get("messages"))
    if "max_tokens" in given and "max_completion_tokens" in given:
        _refuse("max_tokens", "Send max_completion_tokens or max_tokens, not both.")
    name = "max_tokens" if "max_tokens" in given else "max_completion_tokens"
    most = _whole(name, given.get(name), Request.max_new_tokens)
    request = _request(given, prompt="", messages=messages, max_new_tokens=most)
    return _asked(given, [request], len(body), {"max_new_tokens": name, "prompt": "messages"})


def _served(body: bytes, endpoint: str) -> dict[str, Any]:
    """The parameters that count: nothing of what is ignored, neutral, or null."""
    given = {name: value for name, value in _object(body).items() if value is not None}
    neutral = NEUTRAL[endpoint]
    for name, value in given.items():
        if name in neutral:
            if not any(type(value) is type(each) and value == each for each in neutral[name]):
                _refuse(name, f"{name} is not served here: leave it out.", code="UNSUPPORTED_PARAMETER")
        elif name not in SERVED[endpoint] and name not in IGNORED:
            shown = one_line(name, 60)
            _refuse(shown, f"There is no parameter {shown!r} here: leave it out.", code="UNKNOWN_PARAMETER")
    return {name: value for name, value in given.items() if name in SERVED[endpoint]}


def _object(body: bytes) -> dict[str, Any]:
    """A JSON object, as the standard has it. Raises Invalid for anything else."""
    try:
        value = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):  # not UTF-8, NaN, numbers of 5,000 digits, 1,000-deep nesting
        value = None
    if not isinstance(value, dict):
        raise Invalid("The body should be a JSON object, in UTF-8.", code="NOT_JSON")
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _prompts(value: Any) -> list[str]:
    prompts: list[Any] = value if isinstance(value, list) else [value]
    if value is None or not prompts:
        _refuse("prompt", "There is no prompt.")
    if len(prompts) > MAX_BATCH:
        _refuse("prompt", f"{len(prompts):,} prompts are too many; at most {MAX_BATCH} are possible.")
    if not all(isinstance(prompt, str) for prompt in prompts):
        _refuse("prompt", "This should be a text, or a list of texts; token ids are not taken.")
    return prompts


def _request(given: Mapping[str, Any], **of_its_own: Any) -> Request:
    return Request(
        temperature=_number("temperature", given.get("temperature", 1.0)),
        top_p=_number("top_p", given.get("top_p", 1.0)),
        stop=_stops(given.get("stop")),
        **of_its_own,
    )


def _stops(value: object) -> list[str] | None:
    if value is None or isinstance(value, str):
        return None if value is None else [value]
    if not isinstance(value, list) or not all(isinstance(stop, str) for stop in value):
        _refuse("stop", "This should be a text, or a list of texts.")
    if len(value) > MAX_STOP_STRINGS:
        _refuse("stop", f"{len(value):,} stop strings are too many; at most {MAX_STOP_STRINGS} are possible.")
    return value


def _asked(given: Mapping[str, Any], requests: list[Request], size_bytes: int, names: Mapping[str, str]) -> Asked:
    model, stream, options = given.get("model"), given.get("stream", False), given.get("stream_options")
    if not isinstance(model, str):
        _refuse("model", "Say which model to ask: GET /v1/models lists them.")
    if not isinstance(stream, bool):
        _refuse("stream", "This should be true or false.")
    if options is not None and not (stream and isinstance(options, dict)):
        _refuse("stream_options", "This should be an object, beside stream: true.")
    include_usage = (options or {}).get("include_usage") or False
    if not isinstance(include_usage, bool):
        _refuse("stream_options.include_usage", "This should be true or false.")
    return Asked(model, _choices(given, requests, size_bytes), stream, include_usage, names)


def _choices(given: Mapping[str, Any], requests: list[Request], size_bytes: int) -> tuple[Request, ...]:
    """`n` of each request, one after the other. Those of one prompt have seeds that follow each other, or they would be alike.

    Each goes to the inference server by itself: all of them may come to no more than a body may.
    """
    n, seed = _whole("n", given.get("n"), 1), given.get("seed")
    if n < 1 or n * len(requests) > MAX_BATCH:
        _refuse("n", f"There should be 1 to {MAX_BATCH} choices, of all prompts together.")
    if n * size_bytes > settings.MAX_BODY_BYTES:
        _refuse("n", f"{n} choices of so much text come to over 2 MB: ask for fewer at once.")
    first = None if seed is None else _whole("seed", seed, 0)
    if first is not None:
        _whole("seed", first + n - 1, 0)
    seeds = [None if first is None else first + choice for choice in range(n)]
    return tuple(_with_seed(request, seed) for request in requests for seed in seeds)


def _with_seed(request: Request, seed: int | None) -> Request:
    return request if seed is None else replace(request, seed=seed)


def _whole(name: str, value: object, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        _refuse(name, "This should be a whole number of at most 64 bits.")
    return value


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(name, "This should be a number.")
    return value


def _refuse(name: str, message: str, *, code: str = "INVALID") -> NoReturn:
    raise Invalid(message, code=code, field=name)
