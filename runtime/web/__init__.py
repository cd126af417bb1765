"""What a stream shows over HTTP: a page with the pictures, and its figures."""
