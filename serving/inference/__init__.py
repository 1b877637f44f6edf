"""The champion in this process and the decisions that it makes. The graph itself belongs in
`creditrisk_assets.scoring`.
"""
