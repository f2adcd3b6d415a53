"""How what a user states may be written: text files, the environment, URLs, proxies, schedules, keys of projects.

Nothing here knows what is done with it.
"""
