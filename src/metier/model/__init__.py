"""Networks: loaded, adapted, read forward."""

import logging

# PEFT imports bitsandbytes, which then tells everybody of an optional package that downloads native code.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
