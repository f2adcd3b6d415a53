"""The sources of evidence besides image details: one module for each, with what it requests and what it keeps."""
