"""What decides: bundles, their reference profile, and scoring a file. What was decided belongs in
`decisions`.
"""
