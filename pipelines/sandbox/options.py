"""What can be chosen of a sandbox: the faults it shows and how it is started. No behaviour belongs here."""

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Base64Bytes, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipelines.errors import ConfigurationError

MAX_SIZE = 100_000_000

_Ratio = Annotated[float, Field(ge=0, le=1)]
Source = Literal[
    "workspaces",
    "images",
    "notebooks",
    "training_jobs",
    "algorithms",
    "models",
    "services",
    "services_v1",
    "services_v2",
    "workflows",
    "traces",
    "registry",
    "registry_v2",
    "registry_v3",
    "registry_manifests",
]


def _split(value: Any) -> Any:
    return [name for name in value.split(",") if name] if isinstance(value, str) else value


_Sources = Annotated[frozenset[Source], BeforeValidator(_split)]
_HeaderText = Annotated[str, Field(pattern=r"^[\x20-\x7e]*$")]


class CannedAnswer(BaseModel):
    """What the details call answers for one id, instead of the catalogue's answer.

    `body` is sent as it is when it is text, as JSON otherwise; `body_base64` stands for bytes that are no text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Annotated[int, Field(ge=200, le=599)] = 200
    headers: dict[str, _HeaderText] = {}
    body: Any = ""
    body_base64: Base64Bytes | None = None


class Faults(BaseModel):
    """What goes wrong on purpose, or differs between clouds.

    Unless said otherwise this concerns image details, the image list, and the sources other than notebooks. A source
    is a list and, where there are any, its details; of images the list alone. `services` are those of both APIs.

    Which request is hit follows from the seed, the request's path and how often that path was asked for before: the
    same requests meet the same faults, in whatever order they arrive.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    latency_ms: Annotated[float, Field(ge=0)] = Field(0, description="wait before each answer")
    ratio_429: _Ratio = Field(0, description="share of requests answered with 429")
    retry_after: _HeaderText | None = Field("1", description="Retry-After of every 429; null for none")
    ratio_500: _Ratio = Field(0, description="share answered with 500")
    ratio_reset: _Ratio = Field(0, description="share whose connection is reset")
    ratio_truncated: _Ratio = Field(0, description="share whose body ends before its Content-Length")
    ratio_html: _Ratio = Field(0, description="share answered with 200 and an HTML page")
    rate_limit: Annotated[float, Field(gt=0)] | None = Field(
        None, description="requests per second; those beyond are answered with 429"
    )
    lists_forbidden: bool = Field(False, description="answer 403 ModelArts.0108 to the lists of images and notebooks")
    list_shows: Annotated[int, Field(ge=0)] | None = Field(
        None, description="images that the image list shows, while its total stays as it is; null for all"
    )
    lists_ignore_workspace: bool = Field(
        False, description="a list without a workspace_id shows all workspaces, instead of workspace 0"
    )
    max_page: Annotated[int, Field(gt=0)] | None = Field(
        None, description="answer 400 ModelArts.6400 to lists, notebooks among them, with a greater limit"
    )
    jobs_of_user_only: bool = Field(False, description="show the training jobs of the signed-in user alone")
    sources_forbidden: _Sources = Field(frozenset(), description="sources answered with 403 ModelArts.0108")
    sources_missing: _Sources = Field(frozenset(), description="sources answered with 404 APIG.0101")
    sources_broken: _Sources = Field(frozenset(), description="sources answered with 500")
    suspended: bool = Field(False, description="answer 401 ModelArts.6201 to every ModelArts call")
    iam_down: bool = Field(False, description="answer 503 to the token call")
    token_seconds: Annotated[float, Field(gt=0)] = Field(86_400, description="life of a token issued from now on")
    key_seconds: Annotated[float, Field(gt=0)] = Field(
        86_400, description="life of a temporary access key issued from now on"
    )
    no_catalogue: bool = Field(False, description="issue tokens without a catalogue of services")
    no_agency: bool = Field(False, description="answer 404 to a server's call for a temporary access key")
    metadata_token_required: bool = Field(
        False, description="answer 401 to that call without a token of the metadata service"
    )
    answers: dict[str, CannedAnswer] = Field({}, description="JSON object, image id -> answer of its details call")

    @model_validator(mode="after")
    def _ratios_add_up(self) -> Self:
        shares = (self.ratio_429, self.ratio_500, self.ratio_reset, self.ratio_truncated, self.ratio_html)
        if sum(shares) > 1 + 1e-9:
            raise ValueError("the ratios must not add up to more than 1")
        return self


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """How a sandbox is started.

    port            on 127.0.0.1; 0 takes a free one
    seed, size      of the catalogues; equal seeds give equal catalogues
    day             the day to show; None follows the clock (UTC), over midnight
    workspaces      1, or 2: then every eighth image and user of images is in the second workspace
    second_workspace_since  the day on which it appears; None: it always exists
    projects        project name -> project id, each with a catalogue of its own; None: one named "default"
    faults          what goes wrong from the start
    inventory_file  CSV to write the registered images to, and to keep up with the day; None writes none
    exit_with_parent  end when standard input closes, so that the sandbox cannot outlive who started it

    A port, a size or workspaces out of range raise ConfigurationError.
    """

    port: int = 0
    seed: str = "sandbox"
    size: int = 250
    day: date | None = None
    workspaces: int = 1
    second_workspace_since: date | None = None
    projects: dict[str, str] | None = None
    faults: Faults = field(default_factory=Faults)
    inventory_file: Path | None = None
    exit_with_parent: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"The sandbox's port {self.port} is wrong: give 0 to 65535.")
        if not 0 <= self.size <= MAX_SIZE:
            raise ConfigurationError(f"The sandbox's size {self.size} is wrong: give 0 to {MAX_SIZE} images.")
        if self.workspaces not in (1, 2):
            raise ConfigurationError(f"The sandbox's workspaces {self.workspaces} are wrong: give 1 or 2.")
