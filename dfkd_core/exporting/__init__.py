"""Teachers from where they were trained: a module or its weights become a file that the service takes.

This runs on the machine of whoever trusts the network; the service never imports it.

    from dfkd_core.exporting.teacher import export_module, export_weights

`python -m dfkd_core.exporting` does one request from standard input; `dfkd export-teacher` starts that.
"""
