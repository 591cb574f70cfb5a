"""The command `kl`: its sub-commands, and what an error looks like to the person who typed it.

Nothing here imports torch: `kl --help` answers at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Annotated

import typer

from recipes import data, fit, interpolate, plan, predict
from recipes.bench import command as bench
from recipes.reproduce import command as reproduce

INTERRUPTED = 130  # what typer returns for a KeyboardInterrupt

app = typer.Typer(
    help="Train kernel machines with EigenPro under PyTorch Lightning, next to their exact minimum-norm limit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: kl fit --data digits",
)
app.command("fit")(fit.fit)
app.command("interpolate")(interpolate.interpolate)
app.command("predict")(predict.predict)
app.command("plan")(plan.plan)
app.command("reproduce")(reproduce.reproduce)
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"kl {version('kl')}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    """Train kernel machines with EigenPro under PyTorch Lightning, next to their exact minimum-norm limit."""


def main() -> None:
    """Run the command line; exit with 0, 1 (the computation failed) or 2 (the input was wrong)."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what has been begun is put in order
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # what torch's own threads say of a lost rank, beside us
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    for name in ("kl", "datamodules", "callbacks", "recipes"):
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:  # a mistake in the options themselves
        _fail(error.format_message() + _came(error), error.exit_code)
    except typer.Abort:
        _fail("interrupted", 1)
    except KeyboardInterrupt:
        _fail("interrupted", 1)
    except BrokenPipeError:  # the reader of our output, as in `kl ... | head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        from kl.errors import InputError, KLError

        if not isinstance(error, KLError):
            raise
        _fail(str(error), 2 if isinstance(error, InputError) else 1)
    if code == INTERRUPTED:
        _fail("interrupted", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _came(error: typer.TyperException) -> str:
    """What was typed for the option that an error is about."""
    param = getattr(error, "param", None)
    names = [name for name in getattr(param, "opts", []) if name.startswith("--") and name != "--config"]
    for i, word in enumerate(sys.argv[:-1]):
        if word in names:
            return f"; got {sys.argv[i + 1]!r}"
    file = getattr(getattr(error, "ctx", None), "default_map", None) or {}
    return f"; got {file[param.name]!r} from --config" if names and param is not None and param.name in file else ""


def _fail(message: str, code: int) -> None:
    """Say what is wrong, once: of the processes of a machine that find the same the first speaks."""
    if not _repeats_another():
        print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


def _repeats_another() -> bool:
    """Whether what this process says, before they are connected, another of its machine says as well.

    Those that torchrun starts do; tasks of SLURM may have nothing to do with each other.
    """
    if os.environ.get("LOCAL_RANK", "0") == "0":
        return False  # without torch: a mistyped option is answered at once
    import torch.distributed as dist

    from kl.launcher import PARENT

    return PARENT not in os.environ and not dist.is_initialized()
