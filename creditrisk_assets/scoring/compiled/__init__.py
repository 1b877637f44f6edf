"""The compiled decision: the graphs of a bundle as machine code, with the same bits.

The ONNX graphs stay the model and the reference. `tracer` turns them into scalar operations
(`program`), `emitter` writes those as vector code, `native` compiles it, `kernel` runs it, and
`proof` compares it with the graphs before it is used. Needs llvmlite, the extra `fast`.
"""
