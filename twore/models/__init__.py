"""The models of the report's studies."""

from twore.models.preresnet import PreResNet

__all__ = ["PreResNet"]
