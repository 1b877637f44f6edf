"""Reasons for which a bundle is scored by its graphs and not by compiled code."""


class KernelError(RuntimeError):
    """A bundle cannot be scored by compiled code; its graphs score it as ever."""


class MissingCompilerError(KernelError):
    """llvmlite is not installed, or does not know this processor."""


class UnknownOperationError(KernelError):
    """A graph has an operation that the tracer cannot express."""


class TooLargeError(KernelError):
    """A graph has more operations than are worth their compilation."""


class UnsafeCacheError(KernelError):
    """A cached file of machine code could be written by others than this user."""


class ProofError(KernelError):
    """Compiled code and graph gave different bits."""
