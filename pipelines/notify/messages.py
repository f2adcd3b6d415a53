"""The body of a notification: fields for machines, and a text that chat systems show as it is.

The fields have each value as it is. In the text and in cards, values of others are made harmless: control characters
are escaped, and what would be a mention, a link, an image or emphasis becomes plain. docs/notifications.md documents
every field.
"""

import datetime as dt
import json
import re
from collections.abc import Sequence
from typing import Any

from pipelines.notify.told import Event, Item
from pipelines.plain_text import visible

FORMAT = 1
# Items that a message has in full; it counts the others. Teams refuses cards of more than 28 KB.
MOST_ITEMS = 50
_MOST_BYTES = 24_000
_MOST_BYTES_BESIDE_CARDS = 6_000
_MOST_CHARACTERS = 3_000
_LONGEST_LINE = 300

_TITLES = {
    Event.FAILED: ("1 run failed", "{} runs failed"),
    Event.INCOMPLETE: ("1 day is published but incomplete", "{} days are published but incomplete"),
    Event.MISSING: ("1 day is missing", "{} days are missing"),
    Event.RECOVERED: ("1 recovered", "{} recovered"),
    Event.NEW_FINDINGS: ("new audit findings in 1 project", "new audit findings in {} projects"),
    Event.VERIFY_FAILED: ("verify found problems", "verify found problems"),
    Event.PUBLISHED: ("1 day is published", "{} days are published"),
}
# Signs by which Slack, Mattermost or Teams make a mention, a link, an image, code or emphasis, each with one that looks
# alike and means nothing. Escapes differ from system to system, and one of them would show the others' as text.
_MARKUP = str.maketrans(
    {
        "@": "\uff20",
        "<": "\u2039",
        ">": "\u203a",
        "[": "\uff3b",
        "]": "\uff3d",
        "*": "\u2217",
        "`": "\u02cb",
        "~": "\u223c",
        "|": "\u00a6",
        "#": "\uff03",
    }
)
_LOW = "\u02cd"
# Low lines around text are emphasis; one within a word, or alone at its edge as in the path of a lock, is plain.
_EMPHASIS = re.compile(r"(?<![^\W_])(_+)(?=[^\s_])(.*?)(?<=[^\s_])(_+)(?![^\W_])")


def harmless(text: str) -> str:
    """Text of others without control characters, mentions, markup and links, at most `_LONGEST_LINE` long."""
    plain = visible(text).translate(_MARKUP).replace("://", ":/\u2215").replace("www.", "www\u2024")
    if len(plain) > _LONGEST_LINE:
        plain = f"{plain[: _LONGEST_LINE - 1]}\u2026"
    return _EMPHASIS.sub(lambda found: found[1].replace("_", _LOW) + found[2] + found[3].replace("_", _LOW), plain)


def message_body(
    event: Event, items: Sequence[Item], lake: str, now: dt.datetime, *, is_sandbox: bool, as_card: bool
) -> dict[str, Any]:
    """The body for the items of one event, as JSON values; `as_card`: with the cards that workflows of Teams post."""
    total = len(items)
    title = f"image-snapshots: {_TITLES[event][total != 1].format(total)}"
    if is_sandbox:
        title += " (sample data of the sandbox)"
    lines = _lines(items)
    if total > len(lines):
        lines.append(f"\u2022 and {total - len(lines)} more")
    body = {
        "text": "\n".join([title, *lines]),
        "event": event,
        "format": FORMAT,
        "sent_at": now.isoformat(),
        "lake": lake,
        "is_sandbox": is_sandbox,
        "total": total,
        "items": _first(items, as_card=as_card),
    }
    return body | _card(title, lines) if as_card else body


def encoded(body: object) -> bytes:
    """JSON as it is sent."""
    return json.dumps(body, ensure_ascii=False).encode()


def one_message(event: Event, items: Sequence[Item], *, as_card: bool) -> Sequence[Item]:
    """The items that the next message is about: all of them, which it counts if it has no room for some.

    The hash of each manifest must be noted, so `published` comes in as many messages as it takes.
    """
    if event != Event.PUBLISHED:
        return items
    return items[: max(1, min(len(_lines(items)), len(_first(items, as_card=as_card))))]


def _lines(items: Sequence[Item]) -> list[str]:
    """The lines of the first items for which the text has room."""
    lines: list[str] = []
    room = _MOST_CHARACTERS
    for item in items:
        line = f"\u2022 {harmless(item.line)}"
        room -= len(line)
        if room < 0:
            break
        lines.append(line)
    return lines


def _first(items: Sequence[Item], *, as_card: bool) -> list[dict[str, Any]]:
    """The facts of the first items, at least one, for which there is room."""
    room = _MOST_BYTES_BESIDE_CARDS if as_card else _MOST_BYTES
    facts: list[dict[str, Any]] = []
    for item in items[:MOST_ITEMS]:
        room -= len(encoded(item.facts))
        if room < 0 and facts:
            break
        facts.append(item.facts)
    return facts


def _card(title: str, lines: Sequence[str]) -> dict[str, Any]:
    """An Adaptive Card at the top of the body, and as its one attachment: templates of Teams read either of them."""
    blocks = [{"type": "TextBlock", "text": line, "wrap": True} for line in (title, *lines)]
    blocks[0]["weight"] = "Bolder"
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": blocks,
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return card | {"attachments": [attachment]}
