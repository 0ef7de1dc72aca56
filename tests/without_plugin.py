"""A function of a module, where importing the plugin fails: ``python without_plugin.py MODULE FUNCTION ARGUMENTS...``."""

import importlib
import sys
from pathlib import Path

WITHOUT_PLUGIN = Path(__file__)


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "fairseq_bert_kd":
            raise ImportError("the plugin is not installed here")


def main():
    assert "fairseq_bert_kd" not in sys.modules
    sys.meta_path.insert(0, Refuse())
    del sys.path[0]  # this folder
    module, function = sys.argv[1:3]
    del sys.argv[1:3]
    getattr(importlib.import_module(module), function)()


if __name__ == "__main__":
    main()
