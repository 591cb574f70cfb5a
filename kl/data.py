"""The data modules of kl, under a name that no other package has: `kl.data.NAME` is `datamodules.NAME`.

Example:
    >>> from kl.data import DigitsDataModule
    >>> DigitsDataModule(train_size=100).name
    'digits'
"""

from typing import TYPE_CHECKING

from kl.system.lazy import lazy_names
from kl.system.packages import own_package

if TYPE_CHECKING:
    from datamodules import *  # noqa: F403
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, {"datamodules": " ".join(own_package("datamodules").__all__)})
