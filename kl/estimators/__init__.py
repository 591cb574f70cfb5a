"""scikit-learn estimators: kernel regression and classification without a Trainer and without files."""

from kl.estimators.classifier import KernelClassifier
from kl.estimators.files import load
from kl.estimators.regressor import KernelRegressor
from kl.estimators.rfm import RFMClassifier, RFMRegressor

__all__ = ["KernelClassifier", "KernelRegressor", "RFMClassifier", "RFMRegressor", "load"]
