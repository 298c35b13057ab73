"""Bad input, told in one line a mistake: the place, the value, what is allowed and the nearest right word."""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


class BadInput(ValueError):
    """What a user gave cannot be used. `lines`: one line a mistake. The command line exits with 2."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(lines)
        super().__init__("\n".join(self.lines))


def masked(text: str) -> str:
    """The text, with stars for the password of any address in it."""
    return re.sub(r"(://[^/@:\s]*:)[^/@\s]+@", r"\1***@", text)


def without_password(address: str) -> str:
    """The address as it is. ValueError when it holds a password: files, reports and logs would repeat it."""
    if re.search(r"://[^/@:\s]*:[^/@\s]+@", address):
        raise ValueError(
            "holds a password, which the run's files and reports would repeat; give it instead where the "
            "client looks for it (AWS_SECRET_ACCESS_KEY, PGPASSWORD, an option file)"
        )
    return address


def nearest(word: str, words: Iterable[str]) -> str:
    """ " Did you mean '...'?", or nothing when no word is near."""
    found = get_close_matches(word, list(words), n=1)
    return f" Did you mean '{found[0]}'?" if found else ""


def checked(model: type[Model], plain: dict[str, Any], where: str, under: str = "") -> Model:
    """Plain data as a validated model. BadInput with all mistakes at once, each with its path (`under` in
    front).
    """
    try:
        return model.model_validate_json(json.dumps(plain, default=str))
    except ValidationError as error:
        raise BadInput(
            line for item in error.errors() for line in _lines(model, item, where, under)
        ) from None


def _lines(model: type[BaseModel], item: Any, where: str, under: str) -> list[str]:
    path = "/".join([*under.split("/"), *(str(p) for p in _place(model, item["loc"]))]).strip("/")
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        siblings = _fields(model, item["loc"][:-1])
        return [
            f"{where}: {path}: no such field.{nearest(str(item['loc'][-1]), siblings) or _listed(siblings)}"
        ]
    if kind == "missing":
        return [f"{where}: {path}: missing, and it has no default"]
    if kind == "union_tag_invalid":
        allowed = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
        tag = str(context["tag"])
        name = str(context["discriminator"]).strip("'")
        return [f"{where}: {path}/{name} = {tag}: unknown.{nearest(tag, allowed)}{_listed(allowed)}"]
    if kind == "union_tag_not_found":
        return [f"{where}: {path}: says no {context['discriminator']}, which tells what this is"]
    value = item["input"]
    shown = (
        f" = {masked(json.dumps(value))}"
        if isinstance(value, str | int | float | bool | list) or value is None
        else ""
    )
    text = str(context["error"]) if kind == "value_error" else _plain_words(item["msg"])
    near = ""
    if kind == "literal_error" and isinstance(value, str):
        near = nearest(value, [w.strip(" '") for w in context["expected"].replace(" or ", ",").split(",")])
    return [f"{where}: {path}{shown}: {line}{near}" for line in text.splitlines()]


def _plain_words(message: str) -> str:
    return message.replace("Input should be", "should be")


def _listed(words: Iterable[str]) -> str:
    return f" There are: {', '.join(words)}"


def _place(model: type[BaseModel], loc: tuple[Any, ...]) -> list[Any]:
    """The path as the user wrote it: pydantic puts the tag of a union's arm between, which is left out."""
    schema: Any = model
    place = []
    for part in loc:
        if isinstance(schema, dict) and part in schema:  # the tag of an arm
            schema = schema[part]
            continue
        place.append(part)
        schema = _below(schema, part)
    return place


def _fields(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    schema: Any = model
    for part in loc:
        schema = schema[part] if isinstance(schema, dict) and part in schema else _below(schema, part)
    return list(schema.model_fields) if isinstance(schema, type) and issubclass(schema, BaseModel) else []


def _below(schema: Any, part: Any) -> Any:
    """The model under a field, or {tag: model} where the field is a union of models."""
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)) or part not in schema.model_fields:
        return None
    field = schema.model_fields[part]
    for item in field.metadata:
        if hasattr(item, "arms"):
            return item.arms()
    models = _models(field.annotation)
    if field.discriminator is not None:
        return {_first_literal(m.model_fields[str(field.discriminator)].annotation): m for m in models}
    return models[0] if models else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in _models(part)]


def _first_literal(annotation: Any) -> str:
    return str(annotation.__args__[0])
