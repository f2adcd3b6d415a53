"""Talking to the cloud: credentials, signing, tokens; one HTTP stack with retries and rate limits; clients."""
