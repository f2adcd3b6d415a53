"""Parses and checks user input: text files, the environment, URLs, proxies, cron schedules, project keys.

Nothing here knows what the input is used for.
"""
