"""Networks: loaded, adapted, read forward."""

import logging

from metier.hardware import fetch_no_kernels

fetch_no_kernels()
# PEFT imports bitsandbytes, which then tells everybody that it lacks them.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
