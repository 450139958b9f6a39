"""Tasks: the only place that knows a domain."""

from twore.tasks.base import Task, TaskData
from twore.tasks.cifar import CifarTask
from twore.tasks.translation import TranslationTask

TASKS: dict[str, type] = {CifarTask.kind: CifarTask, TranslationTask.kind: TranslationTask}  # names in study files

__all__ = ["TASKS", "CifarTask", "Task", "TaskData", "TranslationTask"]
