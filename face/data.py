"""Lists the domains there are, checks whether their files are whole, and fetches them: ``fmtda data``."""

from pathlib import Path
from typing import Annotated

import typer

from fmtda.face.console import open_console, plain, say
from fmtda.face.refusals import FAILED, refuse
from fmtda.protocol.settings import Scalar

data_cli = typer.Typer(help="Look at the domains there are, check their files, and fetch them.", no_args_is_help=True)


@data_cli.command("list")
def list_domains(
    data_dir: Annotated[
        Path | None, typer.Option(help="folder whose domains to list, for data read from files")
    ] = None,
) -> None:
    """List the families and their domains, with their defaults, and where they come from.

    Examples:

    - `fmtda data list`

    - `fmtda data list --data-dir ~/data/PACS`  (what each family finds there)

    File layouts: docs/data.md.
    """
    from rich.table import Table
    from rich.text import Text

    from fmtda.domains.examples import DataError
    from fmtda.domains.registry import FAMILIES
    from fmtda.domains.registry import family as family_named

    folder = data_dir and data_dir.expanduser().absolute()
    if folder and not folder.is_dir():
        refuse(f"--data-dir {data_dir}: there is no such folder")
    table = Table("family", "kind", "domains", "source", "targets", "where from", show_lines=True)
    for family in map(family_named, FAMILIES):
        found: list[str] = []
        defaults: dict[str, Scalar] = {"source": "", "targets": ""}
        try:
            found.append(", ".join(family.domains_in(folder)))
            defaults = family.defaults(folder, {})
        except DataError as error:
            found.append(str(error) if folder else "those in the files below --data-dir")
        domains = Text("\n").join(map(plain, found))
        source, targets = plain(defaults["source"]), plain(defaults["targets"])
        table.add_row(family.name, family.kind, domains, source, targets, family.origin)
    open_console().print(table)


@data_cli.command()
def check(
    data: Annotated[str, typer.Argument(help="family of domains, as in `fmtda data list`", show_default=False)],
    domains: Annotated[
        list[str] | None, typer.Argument(help="default: all there are, in the folder", show_default=False)
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="folder with the data files")] = None,
    source: Annotated[
        str | None, typer.Option(help="the labelled domain; default: photographs, else the first that has labels")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="comma list, where no domain there has labels: a client's own folder")
    ] = None,
    read: Annotated[
        bool, typer.Option("--read", help="read every example, which also finds damage inside a file, and takes longer")
    ] = False,
) -> None:
    """Check whether the files of a family are whole: names, headers and sizes; with --read everything.

    The exit status is 1 where one is missing or damaged.

    Examples:

    - `fmtda data check digit-five --data-dir ~/data`

    - `fmtda data check image-folders photo sketch --data-dir ~/data/PACS --read`

    - `fmtda data check image-folders --classes cat,dog --data-dir /data`  (pictures without labels, on a client)
    """
    from rich.table import Table
    from rich.text import Text

    from fmtda.domains.examples import DataError
    from fmtda.domains.family import DataSpec
    from fmtda.domains.registry import family

    try:
        chosen = family(data)
        folder = data_dir and data_dir.expanduser().absolute()
        there = chosen.domains_in(folder)
        for domain in domains or ():
            if domain not in there:
                raise DataError(f"{domain}: no such domain in {data}; allowed are {', '.join(there)}")
        named = {key: value for key, value in {"source": source, "classes": classes}.items() if value}
        defaults = {**chosen.defaults(folder, {"targets": "all of them", **named}), **named}
        shape = tuple(int(side) for side in str(defaults["input-shape"]).split("x"))
        spec = DataSpec(folder, classes=tuple(str(defaults["classes"]).split(",")), input_shape=shape)
    except DataError as error:
        refuse(error)
    table, broken = Table("domain", "state", "what was found"), 0
    for domain in domains or there:
        try:
            chosen.check([domain], spec)
            found = f"{chosen.looked_at} are right; --read looks inside"
            if read:
                parts = {part: chosen.load(domain, part, spec) for part in ("train", "test")}
                found = ", ".join(f"{len(examples):,} to {part}" for part, examples in parts.items())
            table.add_row(plain(domain), Text("whole", "green"), found)
        except DataError as error:
            broken += 1
            table.add_row(plain(domain), Text("broken", "red"), plain(error))
    open_console().print(table)
    if broken:
        raise typer.Exit(FAILED)


@data_cli.command()
def fetch(
    name: Annotated[str, typer.Argument(help="mnist, usps, svhn; or pacs, office-home", show_default=False)],
    data_dir: Annotated[Path, typer.Option(help="folder for the files")],
) -> None:
    """Download a domain or a set of domains; does nothing if it is there already.

    mnist, usps and svhn come through torchvision, for `--data digit-five`; pacs and office-home from the Hugging Face
    hub through flwr-datasets, for `--data image-folders`.

    Examples:

    - `fmtda data fetch mnist --data-dir ~/data`

    - `fmtda data fetch pacs --data-dir ~/data/PACS`  (four domains, 200 MB)
    """
    from fmtda.domains import hugging_face
    from fmtda.domains.digit_five import DOWNLOADABLE, DigitFive
    from fmtda.domains.examples import DataError

    folder = data_dir.expanduser().absolute()
    try:
        if name in hugging_face.SETS:
            hugging_face.fetch(name, folder)
        elif name in DOWNLOADABLE:
            DigitFive().fetch(name, folder)
        else:
            allowed = ", ".join((*DOWNLOADABLE, *hugging_face.SETS))
            refuse(f"{name}: can't be downloaded; allowed are {allowed}. All others: docs/data.md says where they lie")
    except DataError as error:
        refuse(error)
    say(f"{name} is in {data_dir}")
