"""Device classes: what a job may ask for, and which jobs a worker's device serves."""

from enum import StrEnum


class DeviceClass(StrEnum):
    """The class of device that a job asks for. A worker has the class CPU or GPU."""

    ANY = "any"
    CPU = "cpu"
    GPU = "gpu"


def class_of(device: str) -> DeviceClass:
    """Return the class of a worker's device: cpu, cuda or cuda:N."""
    return DeviceClass.CPU if device == "cpu" else DeviceClass.GPU


def served_by(device_class: DeviceClass) -> tuple[DeviceClass, ...]:
    """Return the device classes of the jobs that a worker of this class takes and whose queues it reads."""
    return (DeviceClass.ANY, device_class)
