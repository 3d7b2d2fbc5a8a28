"""The command `inception`: finds the subcommand; every failure ends as one sentence and an exit code."""

import errno
import io
import os
import sys
from importlib import import_module

import click

import inception
from inception.errors import InceptionError

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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name that the terminal's encoding cannot show must not end the command.
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        # A list of file names, which need not be text: kept as Python keeps those of a folder.
        sys.stdin.reconfigure(errors="surrogateescape")
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrongly asked, 130 interrupted."""
    try:
        result = cli.main(args=arguments, prog_name="inception", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except InceptionError as error:
        click.echo(f"inception: {error}", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("inception: interrupted", err=True)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone; flushing at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if os.environ.get("INCEPTION_DEBUG"):
            raise
        return _unexpected(error)
    return result if isinstance(result, int) else 0


def _unexpected(error: Exception) -> int:
    """Say what no command foresaw, and return the exit code."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        click.echo(f"inception: {str(error.filename)[:60]}... is too long a name for a file", err=True)
        return 2
    click.echo(
        f"inception: unexpected {type(error).__name__}: {error}. This is a defect; "
        "INCEPTION_DEBUG=1 shows where it happened.",
        err=True,
    )
    return 1
