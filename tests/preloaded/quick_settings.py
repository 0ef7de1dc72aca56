"""hydra with less work: fairseq composes its settings in half of the time, which is most of a tiny training.

Nothing of what it composes changes (see test_quick_settings.py).
"""

import functools


def set_up() -> None:
    """Parse each override once in a process, and let hydra's sources share the store of fairseq's settings."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Override

    # hydra copies its sources for each composition, and what they only read with them; what is loaded is a copy anyway
    ConfigStore.__deepcopy__ = lambda store, memo: store
    parse = OverridesParser.parse_rule

    @functools.cache
    def parsed(text: str, rule: str):
        return parse(OverridesParser.create(), text, rule)

    def again(parser, text: str, rule: str):
        found = parsed(text, rule)
        if not isinstance(found, Override):
            return found
        fresh = object.__new__(type(found))  # as `copy.copy` does, with less work
        fresh.__dict__.update(found.__dict__)
        return fresh

    OverridesParser.parse_rule = again
