"""Files → rows → conversations → items → tokens."""

from metier.hardware import fetch_no_kernels

fetch_no_kernels()
