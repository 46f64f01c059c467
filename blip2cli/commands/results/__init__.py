"""What commands that read results share: their rows, the images that these are about, and the runs that wrote them.

Results of `embed` are read by `features/`; here are only their images.
"""
