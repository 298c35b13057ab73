"""User errors, one line a mistake: the place, the value, what is allowed and the nearest right word."""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from raykd.spec import ByTag

Model = TypeVar("Model", bound=BaseModel)
MAX_SHOWN = 200  # characters of a value in a message
MAX_LINE = 2000  # characters of a line: what a message lists can be long
MAX_LINES = 50


class UserError(ValueError):
    """What a user gave cannot be used. `lines`: one line a mistake. The command line exits with 2."""

    def __init__(self, lines: Iterable[str]) -> None:
        shortened = [shorten(_make_printable(line), MAX_LINE) for line in lines]
        num_more = len(shortened) - MAX_LINES
        self.lines = [*shortened[:MAX_LINES], *([f"... and {num_more} more"] if num_more > 0 else [])]
        super().__init__("\n".join(self.lines))


def _make_printable(text: str) -> str:
    """Control characters as escapes: a terminal would obey them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException, limit: int = MAX_SHOWN) -> str:
    """Returns the first line of an error's message, at most `limit` characters; without one, its type."""
    return shorten((str(error).strip().splitlines() or [type(error).__name__])[0], limit)


def shorten(text: str, limit: int = MAX_SHOWN) -> str:
    """Returns the text, cut to `limit` characters and three dots where it is longer."""
    return text if len(text) <= limit else f"{text[:limit]}..."


def mask_passwords(text: str) -> str:
    """Returns the text, with stars for the password of any address in it."""
    return re.sub(r"(://[^/@:\s]*:)[^/@\s]+@", r"\1***@", text)


def reject_password(address: str) -> str:
    """Returns the address as it is. ValueError when it holds a password: files and logs would repeat it."""
    if re.search(r"://[^/@:\s]*:[^/@\s]+@", address):
        raise ValueError(
            "holds a password, which the run's files and reports would repeat; give it instead where the "
            "client looks for it (AWS_SECRET_ACCESS_KEY, PGPASSWORD, an option file)"
        )
    return address


def suggest_nearest(word: str, words: Iterable[str]) -> str:
    """Returns " Did you mean '...'?", with a space in front, or "" when no word is near."""
    nearest = find_nearest(word, words)
    return f" Did you mean '{nearest}'?" if nearest else ""


def find_nearest(word: str, words: Iterable[str]) -> str:
    """Returns the word itself or the one nearest to it; "" when none is near."""
    matches = get_close_matches(word, list(words), n=1) if len(word) <= MAX_SHOWN else []
    return matches[0] if matches else ""


def validate(model: type[Model], plain: dict[str, Any], where: str, under: str = "") -> Model:
    """Returns plain data as a validated model.

    Args:
        model: The model's class.
        plain: Dicts, lists, strings and numbers.
        where: What the data came from, the beginning of each message.
        under: The path of the data in what they came from.

    Raises:
        UserError: All mistakes at once, each with its path.
    """
    try:
        return model.model_validate_json(json.dumps(plain, default=str))
    except ValidationError as error:
        raise UserError(
            line for item in error.errors() for line in _format_error(model, item, where, under)
        ) from None


def _format_error(model: type[BaseModel], item: Any, where: str, under: str) -> list[str]:
    parts = (shorten(str(part)) for part in _user_path(model, item["loc"]))
    path = "/".join([*under.split("/"), *parts]).strip("/")
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        siblings = _field_names(model, item["loc"][:-1])
        there_are = _list_allowed(siblings) if siblings else ""
        hint = suggest_nearest(str(item["loc"][-1]), siblings) or there_are
        return [f"{where}: {path}: no such field.{hint}"]
    if kind == "missing":
        return [f"{where}: {path}: missing, and it has no default"]
    if kind == "union_tag_invalid":
        allowed = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
        tag = shorten(str(context["tag"]))
        name = str(context["discriminator"]).strip("'")
        has_plugins = isinstance(_find_schema(model, item["loc"]), ByTag)
        there_are = _list_allowed(allowed) + ("; or a plugin's (--plugin FILE.py)" if has_plugins else "")
        return [f"{where}: {path}/{name} = {tag}: unknown.{suggest_nearest(tag, allowed)}{there_are}"]
    if kind == "union_tag_not_found":
        return [f"{where}: {path}: says no {context['discriminator']}, which says what this is"]
    value = item["input"]
    value_text = (
        f" = {shorten(mask_passwords(json.dumps(value)))}"
        if isinstance(value, str | int | float | bool | list) or value is None
        else ""
    )
    text = str(context["error"]) if kind == "value_error" else _simplify(item["msg"])
    suggestion = ""
    if kind == "literal_error" and isinstance(value, str):
        suggestion = suggest_nearest(
            value, [w.strip(" '") for w in context["expected"].replace(" or ", ",").split(",")]
        )
    place = f"{path}{value_text}: " if path else ""  # of the whole there is none
    return [f"{where}: {place}{line}{suggestion}" for line in text.splitlines()]


def _simplify(message: str) -> str:
    return message.replace("Input should be", "should be")


def _list_allowed(words: Iterable[str]) -> str:
    return f" There are: {', '.join(words)}"


def _user_path(model: type[BaseModel], loc: tuple[Any, ...]) -> list[Any]:
    """The path as the user wrote it: pydantic puts the tag of a union's arm between, which is left out."""
    schema: Any = model
    path = []
    for part in loc:
        if not _is_tag(schema, part):
            path.append(part)
        schema = _go_down(schema, part)
    return path


def _field_names(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    schema = _find_schema(model, loc)
    return list(schema.model_fields) if isinstance(schema, type) and issubclass(schema, BaseModel) else []


def _find_schema(model: type[BaseModel], loc: tuple[Any, ...]) -> Any:
    schema: Any = model
    for part in loc:
        schema = _go_down(schema, part)
    return schema


def _is_tag(schema: Any, part: Any) -> bool:
    return isinstance(schema, dict | ByTag) and part in schema


def _go_down(schema: Any, part: Any) -> Any:
    return schema[part] if _is_tag(schema, part) else _field_models(schema, part)


def _field_models(schema: Any, part: Any) -> Any:
    """The model under a field, or what maps tags to models where the field is a union of models."""
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)) or part not in schema.model_fields:
        return None
    field = schema.model_fields[part]
    for item in field.metadata:
        if isinstance(item, ByTag):
            return item
    models = _find_models(field.annotation)
    if field.discriminator is not None:
        return {_get_literal(m.model_fields[str(field.discriminator)].annotation): m for m in models}
    return models[0] if models else None


def _find_models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in _find_models(part)]


def _get_literal(annotation: Any) -> str:
    return str(annotation.__args__[0])
