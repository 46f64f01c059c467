"""The web: files by http and https, with bounds on time, size, redirects and addresses."""
