"""HTML pages without other files: how they are rendered, what all of them look like, and the thumbnails in them.

What a page shows is for the command that writes it.
"""
