"""A ModelArts-compatible endpoint on loopback, for newcomers, demos and tests that have no cloud.

``slots``          what an image is on a day
``catalogue``      what the API says of the images, what happens to them from day to day, and the record of it
``images``         what an ordinary image says of itself
``storylines``     the scripted images
``resources``      who uses the images; ``workloads`` and ``serving`` each kind, ``series`` what all have in common
``traces``         who changed the images
``workspaces``     which records are in the second workspace
``sealed_ids``     ids that can be looked up without an index
``options``        what can be chosen: size, day, projects, workspaces, faults
``server``         the endpoint, run by `serve`; ``further_calls`` all but images and notebooks
``identity``       its tokens and signatures; ``temporary_keys`` its keys that expire
``seen``           the credentials that requests brought
``faults``         what goes wrong there
``responses``      the shapes of its answers
``process``        a sandbox as a child process: `running_sandbox`
"""

from pipelines.sandbox.options import CannedAnswer, Faults, SandboxOptions
from pipelines.sandbox.process import SandboxConnection, running_sandbox

__all__ = ["CannedAnswer", "Faults", "SandboxConnection", "SandboxOptions", "running_sandbox"]
