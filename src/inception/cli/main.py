"""The command `inception`: finds the subcommand; every failure ends as one sentence and an exit code."""

import errno
import io
import os
import sys
from contextlib import suppress
from importlib import import_module

import click

import inception
from inception.errors import InceptionError, printable

# How the system, the C library, PyTorch and threads say that memory, or room for addresses, is not to be had.
NO_MEMORY = (
    "failed to map segment",
    "allocate memory",
    "alloc failed",
    "bad_alloc",
    "bad allocation",
    "can't start new thread",
    "resource temporarily unavailable",
    "out of memory",
)

# Command -> (module, function, help line). Modules are imported only when their command is run.
COMMANDS = {
    "train": ("inception.cli.train", "train", "Train a classifier on a folder of images."),
    "sweep": ("inception.cli.sweep", "sweep_command", "Search for the best training options."),
    "recipes": ("inception.cli.recipes", "recipes", "List the training recipes."),
    "evaluate": ("inception.cli.evaluate", "evaluate", "Measure bundles on labelled images."),
    "calibrate": (
        "inception.cli.calibrate",
        "calibrate_command",
        "Make a bundle's confidence honest.",
    ),
    "robustness": (
        "inception.cli.robustness",
        "robustness",
        "Measure a bundle on worse images.",
    ),
    "predict": ("inception.cli.predict", "predict", "Ask a bundle about images."),
    "embed": ("inception.cli.embed", "embed", "Features of images, their neighbours and duplicates."),
    "fid": ("inception.cli.fid", "fid", "FID, KID and Inception Score of generated images."),
    "explain": ("inception.cli.explain", "explain", "Show where in an image an answer comes from."),
    "visualize": (
        "inception.cli.visualize",
        "visualize",
        "Draw what a channel, neuron or class looks for.",
    ),
    "atlas": ("inception.cli.atlas", "atlas", "Map what a network sees in a collection of images."),
    "trace": ("inception.cli.trace", "trace", "Show what each branch gives to an answer."),
    "dream": ("inception.cli.dream", "dream", "Draw into a picture what a network sees in it."),
    "optimize": ("inception.cli.optimize", "optimize", "Make a bundle fast on this machine."),
    "export": ("inception.cli.export", "export", "Write a bundle for another runtime, and check it there."),
    "benchmark": ("inception.cli.benchmark", "benchmark", "Measure how fast a bundle answers here."),
    "serve": ("inception.cli.serve", "serve", "Answer over HTTP, with a page for people."),
    "client": ("inception.cli.client", "client", "Ask a server about images."),
    "check": ("inception.cli.check", "check", "Find what is wrong with a data set."),
    "shard": ("inception.cli.shard", "shard", "Write a data set as tar shards."),
    "import": ("inception.cli.import_weights", "import_command", "Make a bundle of somebody else's weights."),
    "summary": ("inception.cli.summary", "summary", "Print a network as the paper's Table 1."),
    "weights": ("inception.cli.weights", "weights", "List and fetch published weights."),
    "models": ("inception.cli.models", "models", "List the networks."),
    "compare": ("inception.cli.compare", "compare", "Compare networks by what they cost."),
    "draw": ("inception.cli.draw", "draw", "Draw a network or a module as SVG."),
    "study": ("inception.cli.study", "study", "Check the claims of the paper and the lecture."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed, so that `--help` is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None when there is no such one."""
        if cmd_name not in COMMANDS:
            return None
        module, function, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, _, help_line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(inception.__version__, prog_name="inception")
def cli() -> None:
    """GoogLeNet and its family, from a folder of images to a classifier that answers."""


def main() -> None:
    """Entry point of the command line; always ends the process with an exit code."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name that the terminal's encoding cannot show must not end the command.
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        # A list of file names, which need not be text: kept as Python keeps those of a folder.
        sys.stdin.reconfigure(errors="surrogateescape")
    sys.exit(run(sys.argv[1:]))


def _open_closed_streams() -> None:
    """Open what was closed by whoever started us: the next file would get its number, and messages into it.

    Writing to a standard output that was closed fails, as it does for other programs.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR if name == "stderr" else os.O_RDONLY)  # takes the lowest number
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code.

    0 done, 1 failed, 2 wrongly asked, 130 interrupted, 141 nobody reads our output any more.
    """
    try:
        result = _run_command(arguments)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show(text := io.StringIO())
        with suppress(OSError):
            click.echo(printable(text.getvalue(), keep="\n\t"), err=True, nl=False)
        return error.exit_code
    except InceptionError as error:
        return _failed(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _failed("interrupted", 130)
    except BrokenPipeError:  # the reader of our output has gone
        _discard_output()
        return 141
    except Exception as error:
        if os.environ.get("INCEPTION_DEBUG"):
            raise
        return _unexpected(error)
    return result if isinstance(result, int) else 0


def _run_command(arguments: list[str]) -> object:
    """What the command returns. Click's `main` would end with 1 where the reader of our output has gone."""
    if "_INCEPTION_COMPLETE" in os.environ:  # a shell asks for completions
        return cli.main(args=arguments, prog_name="inception", standalone_mode=False)
    try:
        with cli.make_context("inception", list(arguments)) as context:
            return cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except EOFError as error:
        raise click.Abort from error


def _failed(sentence: str, code: int) -> int:
    """Say why the command ends, where anybody can be told, and return the exit code."""
    with suppress(OSError):
        click.echo(f"inception: {printable(sentence)}", err=True)
    return code


def _discard_output() -> None:
    """Let what could not be written go: flushing at exit would fail again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unexpected(error: Exception) -> int:
    """Say what no command foresaw, and return the exit code."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return _failed(f"{str(error.filename)[:60]}... is too long a name for a file", 2)
    if _is_lack_of_memory(error):
        return _failed(
            "there is not enough memory: give the process more (ulimit -v, the container's limit), "
            "or less to do at once",
            1,
        )
    if isinstance(error, OSError) and error.errno is not None:
        return _failed(_refused_by_system(error), 1)
    return _failed(
        f"unexpected {type(error).__name__}: {error}. This is a defect; "
        "INCEPTION_DEBUG=1 shows where it happened.",
        1,
    )


def _refused_by_system(error: OSError) -> str:
    """What the system said, and of what. Errors of files that are written to have names; of streams, none."""
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    _discard_output()
    return f"cannot write the output: {error.strerror}"


def _is_lack_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | ImportError | OSError) and any(
        words in str(error).lower() for words in NO_MEMORY
    )
