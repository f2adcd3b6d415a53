"""Notifications: what happened in the lake that people should know, and its way to their webhooks.

`events` finds what is new, `told` is the record of what was told, `messages` writes the body of a POST, `delivery`
sends it. `telling` is the order of these. A notification never changes how a run ends.
"""
