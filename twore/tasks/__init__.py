"""Tasks: the only place that knows a domain."""

from twore.tasks.base import Task, TaskData
from twore.tasks.cifar import CifarTask

TASKS: dict[str, type] = {CifarTask.kind: CifarTask}  # names in study files

__all__ = ["TASKS", "CifarTask", "Task", "TaskData"]
