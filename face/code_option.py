"""Offers the option by which whoever loads a model allows its settings to import modules."""

from typing import Annotated

import typer

AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", help="import what the settings name by its place, package.module:Class; it is run"),
]
