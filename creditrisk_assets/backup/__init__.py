"""Backup of a store and its restoration, in either shape.

`copies` has the files, `rows` the form of tables, `embedded`, `served` and `mlflow_records` the
places that rows come from and go to.
"""
