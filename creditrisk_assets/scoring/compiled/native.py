"""Compiles LLVM's text for this processor and loads the machine code.

The only module that imports llvmlite, and only when it is used.
"""

from typing import Any

from creditrisk_assets.scoring.compiled.errors import KernelError, MissingCompilerError


def compiler_version() -> str:
    """Everything but the text on which machine code depends: versions, processor and its features.

    Raises:
        MissingCompilerError: if there is no llvmlite for this processor.
    """
    binding = _binding()
    import llvmlite

    parts = (
        llvmlite.__version__,
        *map(str, binding.llvm_version_info),
        binding.get_default_triple(),
        binding.get_host_cpu_name(),
        _features(binding),
    )
    return " ".join(parts)


def compile_text(text: str) -> bytes:
    """Compile LLVM's text to an object file.

    Raises:
        MissingCompilerError: if there is no llvmlite for this processor.
        KernelError: if LLVM does not accept the text.
    """
    binding = _binding()
    try:
        module = binding.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise KernelError(f"LLVM {binding.llvm_version_info} refuses the text: {error}") from error
    return bytes(_machine(binding).emit_object(module))


class NativeCode:
    """Loaded object file; its functions live as long as this object.

    Args:
        content: an object file made by `compile_text` on such a processor.

    Raises:
        MissingCompilerError: if there is no llvmlite for this processor.
    """

    def __init__(self, content: bytes) -> None:
        binding = _binding()
        self._engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _machine(binding))
        self._engine.add_object_file(binding.ObjectFileRef.from_data(content))
        self._engine.finalize_object()

    def address(self, name: str) -> int:
        """Address of an exported function."""
        return int(self._engine.get_function_address(name))


def _binding() -> Any:
    try:
        from llvmlite import binding
    except (ImportError, OSError) as error:
        raise MissingCompilerError(
            f"llvmlite cannot be imported ({error}); valid: an installation with the extra fast"
        ) from error
    try:
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
    except RuntimeError as error:
        raise MissingCompilerError(f"llvmlite does not know this processor: {error}") from error
    return binding


def _machine(binding: Any) -> Any:
    target = binding.Target.from_default_triple()
    return target.create_target_machine(
        cpu=binding.get_host_cpu_name(), features=_features(binding), opt=2, jit=True
    )


def _features(binding: Any) -> str:
    return str(binding.get_host_cpu_features().flatten())
