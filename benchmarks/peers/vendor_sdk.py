"""The vendor's SDK with a pool of threads and pandas; it signs each request with an access key."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkmodelarts.v1 import ModelArtsClient, ShowImageRequest


def main() -> None:
    env = os.environ
    ids = Path(env["IDS"]).read_text().split()
    in_flight = int(env["IN_FLIGHT"])
    config = HttpConfig()
    config.ssl_ca_cert = env.get("SSL_CERT_FILE") or None
    started, spent = time.perf_counter(), time.process_time()
    client = (
        ModelArtsClient.new_builder()
        .with_http_config(config)
        .with_credentials(BasicCredentials("AK", "SK", env["PROJECT_ID"]))
        .with_endpoint(env["ENDPOINT"])
        .build()
    )
    with ThreadPoolExecutor(in_flight) as pool:
        answers = pool.map(lambda image_id: client.show_image(ShowImageRequest(id=image_id)).to_dict(), ids)
        frame = pd.json_normalize(list(answers))
    frame.to_parquet(Path(env["OUT"]) / "images.parquet")
    seconds, cpu = time.perf_counter() - started, time.process_time() - spent
    print(json.dumps({"seconds": seconds, "cpu": cpu, "rows": len(frame)}))


if __name__ == "__main__":
    main()
