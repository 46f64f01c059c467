"""The web: files by http and https, with limits on time, size, redirects and
addresses."""
