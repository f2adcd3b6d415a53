"""HOW the snapshot is made, in plain Python: nothing here knows the orchestrator.

The modules in the order in which a day passes through them:

``settings``, ``credentials``  what the user stated
``inventory``                  which image ids exist, according to the user
``signing``, ``answers``, ``throttle``, ``api``  the ModelArts API: one client, one classification of answers
``fetch``                      one outcome per id, put on disk as it arrives
``columns``                    the one table of columns that every schema derives from
``normalise``                  stored responses -> the `images` frame
``lake``, ``publish``          where tables live; validate, replace atomically, seal with a manifest
``verify``                     prove a published day, or name what was changed
``sandbox``                    a ModelArts-compatible endpoint on loopback
"""
