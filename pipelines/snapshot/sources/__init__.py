"""The sources of evidence beside the details of images: one module for each, with what it asks and what it keeps."""
