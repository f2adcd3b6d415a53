"""A script written in an afternoon: httpx, a semaphore, gather, pandas. Everything default; no retries, no resume."""

import asyncio
import json
import os
import time
from pathlib import Path

import httpx
import pandas as pd


async def fetch(ids: list[str], endpoint: str, project_id: str, in_flight: int) -> list[dict[str, object]]:
    verify = os.environ.get("SSL_CERT_FILE") or True
    async with httpx.AsyncClient(timeout=60, verify=verify) as client:
        answer = await client.post(f"{endpoint}/v3/auth/tokens", json={"auth": {}})
        client.headers["X-Auth-Token"] = answer.headers["X-Subject-Token"]
        semaphore = asyncio.Semaphore(in_flight)

        async def show(image_id: str) -> dict[str, object]:
            async with semaphore:
                response = await client.get(f"{endpoint}/v1/{project_id}/images/{image_id}")
                response.raise_for_status()
                return dict(response.json())

        return await asyncio.gather(*(show(image_id) for image_id in ids))


def main() -> None:
    env = os.environ
    ids = Path(env["IDS"]).read_text().split()
    started, spent = time.perf_counter(), time.process_time()
    records = asyncio.run(fetch(ids, env["ENDPOINT"], env["PROJECT_ID"], int(env["IN_FLIGHT"])))
    frame = pd.json_normalize(records)
    frame.to_parquet(Path(env["OUT"]) / "images.parquet")
    seconds, cpu = time.perf_counter() - started, time.process_time() - spent
    print(json.dumps({"seconds": seconds, "cpu": cpu, "rows": len(frame)}))


if __name__ == "__main__":
    main()
