"""The checks that every kernel and every machine must pass, shipped so that you can run them on your own."""

from kl.testing.kernel import check_kernel
from kl.testing.machine import check_machine

__all__ = ["check_kernel", "check_machine"]
