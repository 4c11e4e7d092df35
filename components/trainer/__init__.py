"""Trainer: a ResNet50 regressor that learns an age from a photo and its mirror image."""

from components.trainer.component import trainer

__all__ = ["trainer"]
