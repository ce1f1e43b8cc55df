"""On the path of sites' processes: gliofed as a hospital's owner may have changed it.

GLIOFED_TEST_SITE names the module whose `change` gets the class `Site`.
"""

import importlib.abc
import importlib.util
import os
import sys


class _AfterSite(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "gliofed.federated.client":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module) -> None:
            load(module)
            importlib.import_module(os.environ["GLIOFED_TEST_SITE"]).change(module.Client)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _AfterSite())
