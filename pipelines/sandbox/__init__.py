"""A ModelArts-compatible endpoint on loopback, for newcomers, demos and tests that have no cloud.

``catalogue``  which images there are, what happens to them from day to day, and the record of it
``options``    what can be chosen: size, day, projects, faults
``images``     what an ordinary image says of itself
``storylines`` the scripted images
``server``     the endpoint, run by `serve`
``identity``   its tokens and signatures
``faults``     what goes wrong there
``responses``  the shapes of its answers
``process``    a sandbox as a child process: `running_sandbox`
"""

from pipelines.sandbox.options import CannedAnswer, Faults, SandboxOptions
from pipelines.sandbox.process import SandboxConnection, running_sandbox

__all__ = ["CannedAnswer", "Faults", "SandboxConnection", "SandboxOptions", "running_sandbox"]
