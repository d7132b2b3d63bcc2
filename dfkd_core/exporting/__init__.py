"""Write a trained network, or its weights, to a file that the service accepts as a teacher.

This runs on the user's own machine, which trusts the network's code; the service never imports this folder.

    from dfkd_core.exporting.teacher import export_module, export_weights

`python -m dfkd_core.exporting` serves one request from standard input; `dfkd export-teacher` starts that.
"""
