"""Write the tables of results files into the pages that show them.

    python examples/fill_tables.py [PAGE...]

A page (default: README.md, examples/*/README.md, docs/*.md) marks each place by two lines, and what is between them is replaced:

    <!-- table: results/laptop.json main -->
    <!-- end of table -->

The file is relative to the page; after it what `markdown_tables` calls names, all groups of systems where none is given. The name
`training-pairs` alone is one table of all experiments of the file.
"""

import json
import re
import sys
from pathlib import Path

from fairseq_bert_kd.report.markdown_tables import GROWTH_TABLE, growth_table, markdown_tables

ROOT = Path(__file__).parents[1]
PLACE = re.compile(
    r"(?P<head><!-- table: (?P<file>\S+)(?P<groups>( \S+)*) -->\n).*?(?P<tail><!-- end of table -->)",
    re.DOTALL,
)


def pages() -> list[Path]:
    """Every page that may hold a table."""
    return [ROOT / "README.md", *sorted(ROOT.glob("examples/*/README.md")), *sorted(ROOT.glob("docs/*.md"))]


def filled(page: Path) -> str:
    """The page's text with its tables as the results files give them.

    Raises:
        ValueError: a results file does not have what the page names; the message says which page.
    """

    def table(place: re.Match[str]) -> str:
        record = json.loads((page.parent / place["file"]).read_text(encoding="utf-8"))
        names = place["groups"].split()
        try:
            if names == [GROWTH_TABLE]:
                tables = [growth_table(record["experiments"])]
            else:
                tables = [markdown_tables(found, names or None) for found in record["experiments"]]
        except ValueError as error:
            raise ValueError(f"{page}, `{place['file']}`: {error}") from None
        return place["head"] + "\n" + "\n".join(tables) + "\n" + place["tail"]

    return PLACE.sub(table, page.read_text(encoding="utf-8"))


def main() -> None:
    for page in [Path(name) for name in sys.argv[1:]] or pages():
        text = filled(page)
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            print(page)


if __name__ == "__main__":
    main()
