"""Changes the faults of a sandbox while it runs."""

import httpx


def set_faults(cloud, method="PATCH", **faults):
    """Change the faults of a started sandbox, or with PUT state all of them."""
    httpx.request(method, f"{cloud.endpoint}/sandbox/faults", json=faults).raise_for_status()
