"""The champion in this process, and its decisions. The decision graph itself belongs in
`creditrisk_assets.scoring`.
"""
