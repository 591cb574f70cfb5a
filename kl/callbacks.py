"""The callbacks of kl, under a name that no other package has: `kl.callbacks.NAME` is `callbacks.NAME`.

Example:
    >>> from kl.callbacks import RKHSNorm
    >>> RKHSNorm.__module__
    'callbacks.rkhs_norm'
"""

from typing import TYPE_CHECKING

from kl.system.lazy import lazy_names
from kl.system.packages import own_package

if TYPE_CHECKING:
    from callbacks import *  # noqa: F403
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, {"callbacks": " ".join(own_package("callbacks").__all__)})
