"""The verbs. They parse, call and print; each imports what it needs when it is called."""

import sys

import typer

from raykd.cli import data, prepare, runs, students

app = typer.Typer(
    help="Hyperparameter studies of contrastive knowledge distillation on Ray.",
    add_completion=False,
    rich_markup_mode=None,  # plain help: no frames that break an option's name
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for verbs in (prepare.app, runs.app, students.app):
    app.add_typer(verbs)
app.add_typer(
    data.app, name="data", help="Data sets: what there is, and shards of large ones.", no_args_is_help=True
)


def main() -> None:
    """Exit 0 done, 1 failed work, 2 bad input (one line a mistake on stderr), 130 interrupted."""
    from raykd.errors import UserError

    try:
        app()
    except UserError as error:
        print("\n".join(error.lines), file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"raykd: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("raykd: interrupted", file=sys.stderr)
        sys.exit(130)
