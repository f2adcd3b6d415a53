"""dlt as in its documentation: a deferred transformer, as many workers as requests in flight, Parquet on disk."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
from dlt.sources.helpers import requests


def main() -> None:
    env = os.environ
    ids = Path(env["IDS"]).read_text().split()
    endpoint, project_id = env["ENDPOINT"], env["PROJECT_ID"]
    started, spent = time.perf_counter(), time.process_time()
    token = requests.post(f"{endpoint}/v3/auth/tokens", json={"auth": {}}).headers["X-Subject-Token"]
    headers = {"X-Auth-Token": token}

    @dlt.resource(name="ids")
    def inventory() -> Iterator[str]:
        yield from ids

    @dlt.transformer(data_from=inventory, name="images", write_disposition="replace")
    def images(image_id: str) -> Any:
        @dlt.defer
        def show() -> Any:
            response = requests.get(f"{endpoint}/v1/{project_id}/images/{image_id}", headers=headers)
            response.raise_for_status()
            return response.json()

        return show()

    pipeline = dlt.pipeline(
        "benchmark",
        pipelines_dir=str(Path(env["OUT"]) / "pipelines"),
        destination=dlt.destinations.filesystem(bucket_url=f"file://{env['OUT']}/lake"),
        dataset_name="benchmark",
    )
    pipeline.run(images, loader_file_format="parquet")
    seconds, cpu = time.perf_counter() - started, time.process_time() - spent
    rows = pipeline.last_trace.last_normalize_info.row_counts["images"]
    print(json.dumps({"seconds": seconds, "cpu": cpu, "rows": rows}))


if __name__ == "__main__":
    main()
