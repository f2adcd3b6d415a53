"""The scripted cast of the catalogue: images whose stories repeat every seven days."""

from typing import Any, Literal, NamedTuple

from pipelines.sandbox.images import Life, re_push, touch

State = Literal["ok", "deleted", "forbidden", "absent"]

WEEK = 7
_YEAR = 52 * WEEK
_DECADE = 10 * _YEAR


class Storyline(NamedTuple):
    """A scripted image: `days` is how long one generation of it lives."""

    name: str
    days: int
    meaning: str


STORYLINES = (
    Storyline("short-lived", WEEK, "created, described anew, answers DELETED for two days, then is not found"),
    Storyline("re-pushed", _YEAR, "pushed anew under the same tag every week: size and update_at change"),
    Storyline("narrowed", _YEAR, "goes from PUBLIC to PRIVATE on day 3 of the week, and back on day 0"),
    Storyline("widened", _YEAR, "goes from PRIVATE to PUBLIC on day 4 of the week, and back on day 0"),
    Storyline("failed-build", WEEK, "INIT, CREATING, then CREATE_FAILED; cleared away at the end of the week"),
    Storyline("vanishing", _YEAR, "not found on days 3 and 4 of the week, there again from day 5"),
    Storyline("unused-giant", _DECADE, "about 180 GB, never changed, used by no notebook"),
    Storyline("forbidden", _YEAR, "exists but may never be read"),
    Storyline("locked", _YEAR, "may not be read on days 2 and 3 of the week"),
    Storyline("broken", _YEAR, "status ERROR on days 5 and 6 of the week"),
    Storyline("odd", _YEAR, "numbers as text, absurd timestamps, unknown fields and values; one more from day 4 on"),
    Storyline("unregistered", _YEAR, "ordinary, but the inventory does not know it"),
    Storyline("elsewhere", _YEAR, "in the second workspace, and the inventory does not know it"),
    Storyline("trained-with", _YEAR, "used by a training job of every night, and by nothing else"),
    Storyline("algorithm-only", _YEAR, "an algorithm refers to it, and nothing else"),
    Storyline("copied-from", _YEAR, "a model was copied from it, and nothing else refers to it"),
    Storyline("codelab-only", _YEAR, "used by a CodeLab instance, and by nothing else"),
)


def scripted_state(story: str, age: int, ended: bool) -> State:
    """What becomes of an image of the cast at an age in days, and once it has ended."""
    weekday = age % WEEK
    if ended:
        return "absent"
    match story:
        case "short-lived" if weekday >= 4:
            return "deleted" if weekday < 6 else "absent"
        case "vanishing" if weekday in (3, 4):
            return "absent"
        case "forbidden":
            return "forbidden"
        case "locked" if weekday in (2, 3):
            return "forbidden"
    return "ok"


def play(story: str, body: dict[str, Any], life: Life, ordinal: int) -> None:
    """Tell a story on: a week of it, then the next."""
    # `steps` are the days of the week on which something changes.
    age = ordinal - life.first
    weekday = age % WEEK
    body.update(name=story, status_message=None)
    steps: tuple[int, ...] = ()
    match story:
        case "short-lived":
            steps = (2, 4)
            if weekday >= 2:
                body["description"] = "Described anew on its third day"
            if weekday >= 4:
                body["status"] = "DELETED"
        case "re-pushed":
            steps = (3,)
            re_push(body, (age + WEEK - 3) // WEEK)
        case "narrowed":
            steps = (0, 3)
            body["visibility"] = "PUBLIC" if weekday < 3 else "PRIVATE"
        case "widened":
            steps = (0, 4)
            body["visibility"] = "PRIVATE" if weekday < 4 else "PUBLIC"
        case "failed-build":
            steps = (1, 2)
            body["status"] = ("INIT", "CREATING", "CREATE_FAILED")[min(weekday, 2)]
            if weekday >= 2:
                body["status_message"] = "The build ended with exit status 137: out of memory."
        case "unused-giant":
            body.update(size=188_743_680, type="DEDICATED", visibility="PRIVATE")
        case "broken":
            steps = (0, 5)
            if weekday >= 5:
                body.update(status="ERROR", status_message="The image layers cannot be read.")
        case "odd":
            body.update(
                size=str(body["size"]),
                create_at=0,
                update_at=99_999_999_999_999_999,
                service_type="MULTI_MODAL",
                dev_services=["NOTEBOOK", "VSCODE", "NOTEBOOK"],
                resource_categories=[],
                support_res_categories=None,
                show_tag=body["tag"],
                tags=[{"key": "stage", "value": "prod"}, {"key": "team", "value": "mlops"}],
            )
            if weekday >= 4:
                body["swr_instance_id"] = body["id"]
    changed = [age - (weekday - step) % WEEK for step in steps]
    last = max((at for at in changed if at > 0), default=0)
    if last:
        touch(body, life.first + last)
