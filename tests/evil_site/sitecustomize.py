"""On the path of sites' processes: their answers become those of `bad_updates`."""

import importlib.abc
import importlib.util
import sys


class _AfterSite(importlib.abc.MetaPathFinder):
    """Changes gliofed's own module once it is loaded: a hospital's machine is its owner's."""

    def find_spec(self, name, path, target=None):
        if name != "gliofed.fed.site":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module) -> None:
            load(module)
            from bad_updates import send_bad_updates  # needs torch

            send_bad_updates(module.Site)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _AfterSite())
