"""Writes the share of a machine that Ray reserves for one simulated client as options of the command line."""


def client_options(client_cpus: float, client_gpus: float) -> tuple[str, ...]:
    """Write a simulated client's share of the machine as options; none where it is the usual one, a core and no GPU."""
    cpus = ("--client-cpus", f"{client_cpus:g}") if client_cpus != 1 else ()
    gpus = ("--client-gpus", f"{client_gpus:g}") if client_gpus else ()
    return (*cpus, *gpus)
