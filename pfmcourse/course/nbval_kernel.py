"""A pytest plugin for nbval: a kernel that was lost at its start is started again (see ``pfmcourse.course.kernel``)."""

import functools

import nbval.kernel

from pfmcourse.course import kernel

_start = nbval.kernel.start_new_kernel


@functools.wraps(_start)
def start_new_kernel(*arguments, **options):
    """nbval's own function, called again where the kernel did not come up."""
    return kernel.patiently(lambda: _start(*arguments, **options))


def pytest_configure() -> None:
    """Put the patient start where nbval looks it up."""
    nbval.kernel.start_new_kernel = start_new_kernel
