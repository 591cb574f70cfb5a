"""scikit-learn estimators: kernel regression and classification without a Trainer and without files."""

from kl.estimators.classifier import KernelClassifier
from kl.estimators.files import load
from kl.estimators.regressor import KernelRegressor

__all__ = ["KernelClassifier", "KernelRegressor", "load"]
