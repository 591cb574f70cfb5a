"""The command `kl`, and `python -m kl`: hands over to `recipes.cli`, once it is known to be kl's own."""

import sys

from kl.errors import PackageClashError
from kl.system.packages import require_own


def main() -> None:
    """Run the command line, as `recipes.cli.main` does.

    Where another package has the name `recipes`, report that on one line and exit with 2.
    """
    try:
        require_own("recipes")
    except PackageClashError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    from recipes.cli import main as run
    from recipes.output.end import ends_at_once

    with ends_at_once():
        run()


if __name__ == "__main__":
    main()
