"""The client of the ModelArts API: image details and the image list.

Other resources are read by the methods that it inherits from `cloud.service.ServiceClient`.
"""

import logging
import re
from collections.abc import AsyncIterator, Sequence
from typing import Self

from pipelines.cloud.classification import ImageResponse, classify
from pipelines.cloud.paging import IMAGES, ListPage
from pipelines.cloud.service import Reading, ServiceClient

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

_logger = logging.getLogger(__name__)


class ModelArtsClient(ServiceClient):
    """A client for one project's ModelArts API.

    `list_shortfall`: how many images the list counts but shows on none of its pages; None before the list was read.
    """

    list_shortfall: int | None = None

    _images_path = ""

    async def __aenter__(self) -> Self:
        """Open connections and fetch the token, as `ServiceClient` does."""
        await super().__aenter__()
        # Built once, because there may be a million requests.
        self._images_path = self.path("/v1/{project_id}/images")
        return self

    async def show_image(self, image_id: str) -> ImageResponse:
        """Fetch one image's details, with retries. A failure of this image alone is in the result, not raised.

        Raises:
            ValueError: `image_id` is not a UUID with hyphens; such a value must never reach a URL.
            AccountSuspendedError, AccessDeniedError, ConfigurationError, EndpointUnreachableError: no request can
                succeed; every later call raises the same error.
        """
        asked = image_id.lower()
        if _UUID.fullmatch(asked) is None:
            raise ValueError("not a UUID, so it cannot be requested")
        result = await self.ask(
            f"{self._images_path}/{asked}", lambda status, headers, body: classify(asked, status, headers, body)
        )
        verdict = result.verdict
        return ImageResponse(
            asked,
            verdict.outcome,
            result.status,
            verdict.error_code,
            verdict.error_msg,
            result.attempts,
            result.elapsed_ms,
            result.observed_at,
            result.body,
        )

    async def list_images(self, workspaces: Sequence[str]) -> AsyncIterator[ListPage]:
        """Read the image list of some workspaces, page by page, each image once.

        If the list shows fewer images than it counts, a warning is logged.

        Raises:
            ListUnreadableError: a page cannot be read.
            PipelineError: no request can succeed.
        """
        reading = Reading(IMAGES)
        for workspace in workspaces:
            async for page in self.pages(reading, workspace):
                yield page
        self.list_shortfall = reading.shortfall
        if reading.shortfall:
            _logger.warning(
                "The image list of %s counts %d images that were on none of its pages.", self.host, reading.shortfall
            )
