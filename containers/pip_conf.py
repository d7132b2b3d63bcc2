"""Prints this host's pip settings as one pip.conf, so that an image build uses the same package indexes."""

import subprocess
import sys

listing = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True)
settings: dict[str, str] = {}
for line in listing.stdout.splitlines():
    name, _, value = line.partition("=")
    section, _, key = name.partition(".")
    if section == "global":
        settings.setdefault(key, value.strip("'"))
    elif section == ":env:":  # the environment wins over files
        settings[key.lstrip(".")] = value.strip("'")
sys.stdout.write("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
