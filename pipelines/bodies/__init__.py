"""What the cloud's answers say: JSON as it really comes, the body of an image, a page of a list. Nothing here asks."""
