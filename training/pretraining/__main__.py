"""`python -m training.pretraining`: manage.py build_base_model for where there is no Django."""

from argparse import ArgumentParser

from rich.console import Console

from training.pretraining.cli import add_arguments, run


def main() -> None:
    parser = ArgumentParser(prog="python -m training.pretraining", description="Build the platform's small base model.")
    add_arguments(parser)
    run(vars(parser.parse_args()), Console())


if __name__ == "__main__":
    main()
