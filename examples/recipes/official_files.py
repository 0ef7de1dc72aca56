"""Official files of a task: ``official`` in the current folder, which is DATA itself or what an archive in it holds.

    python official_files.py DATA --url URL --archive de-en.tgz --needs de-en/train.tags.de-en.en
    python official_files.py DATA --url FOLDER_URL --needs train.en train.vi

Nothing is fetched without --fetch. Run by the recipes.
"""

import argparse
import shutil
import urllib.request
from pathlib import Path

from corpus import is_there, run


def fetched(data: Path, name: str, url: str, fetch: bool, instead: str = "") -> None:
    """Put a file into ``data``, unless it is there.

    Raises:
        FileNotFoundError: it is not, and ``fetch`` is False.
    """
    if is_there(data / name):
        return
    if not fetch:
        raise FileNotFoundError(
            f"data must hold {instead}{name}, but {data} does not. Put it there from {url}, or give own.fetch=true "
            "where there is a network"
        )
    print(f"fetching {url}")
    urllib.request.urlretrieve(url, data / f"{name}.part")
    (data / f"{name}.part").rename(data / name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--needs", nargs="+", required=True, help="files; one is enough with --archive")
    parser.add_argument("--archive", help="tar or zip file that holds them")
    parser.add_argument("--url", required=True, help="of the archive, or of the folder of the files")
    parser.add_argument("--fetch", default="false", type=str.lower, choices=["true", "false"])
    args = parser.parse_args()
    official, fetch = Path("official"), args.fetch == "true"
    if args.archive and not any(is_there(args.data / name) for name in args.needs):
        fetched(args.data, args.archive, args.url, fetch, f"{args.needs[0]} or ")
        if official.is_symlink():
            official.unlink()
        shutil.unpack_archive(args.data / args.archive, official)
        if not any(is_there(official / name) for name in args.needs):
            raise FileNotFoundError(
                f"{args.data / args.archive} must hold {args.needs[0]}, but does not. Fetch it again from {args.url}"
            )
        return
    for name in [] if args.archive else args.needs:
        fetched(args.data, name, f"{args.url}/{name}", fetch)
    if not official.exists():
        official.symlink_to(args.data.resolve())


if __name__ == "__main__":
    run(main)
